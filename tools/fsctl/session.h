// A command's connection to gradfs: an executor, a transport, and the Filesystem on them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "client/lib/endpoints.h"
#include "client/lib/filesystem.h"
#include "client/lib/mount_path.h"
#include "client/lib/run_blocking.h"

namespace gradfs::fsctl {

class Session {
 public:
  // address: ADDR:PORT. Connects at most timeout_ns.
  static Result<std::unique_ptr<Session>> open(const std::string& address,
                                               std::int64_t timeout_ns = kConnectTimeout_ns);
  ~Session();

  [[nodiscard]] Filesystem& filesystem() { return filesystem_; }
  [[nodiscard]] const wire::HelloResponse& hello() const { return hello_; }
  template <class T>
  Result<T> run(Task<Result<T>> task) {
    return run_blocking(executor_, std::move(task));
  }

 private:
  explicit Session(const std::string& address);

  Executor executor_;
  std::unique_ptr<Transport> transport_;
  Filesystem filesystem_;
  wire::HelloResponse hello_;
};

// Runs a command's coroutine against the master of GRADFS_MASTER, and prints its error. Returns the exit
// status.
int run_command(const std::function<Task<Result<void>>(Filesystem&)>& body);
// The same for a command with a PATH: `body` gets the path in gradfs; a path on a mount goes to the master of
// the mount.
int run_path_command(const std::string& path,
                     const std::function<Task<Result<void>>(Filesystem&, std::string)>& body);

}  // namespace gradfs::fsctl
