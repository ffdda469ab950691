// DIR of `fsctl cluster`: who works on it (lock), with which options (cluster.toml), and where its parts lie.
//
//   DIR/cluster.toml  options    DIR/lock  flock while fsctl starts or stops    DIR/ROLE.pid, DIR/ROLE.log
//   DIR/master        the namespace    DIR/worker-0  the worker; its memory is the tmpfs DIR/worker-0/mem
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::fsctl {

struct ClusterOptions {
  std::string listen = "127.0.0.1:7400";  // of the master, ADDR:PORT
  std::string mount;                      // absolute; empty: never given
  unsigned workers = 1;
  std::string memory = "4GiB";       // as it was written; parse_size takes it
  std::string passthrough = "auto";  // auto, on, off
  bool operator==(const ClusterOptions&) const = default;
};

std::string render_options(const ClusterOptions& options);
// kInvalid, with the line, for what is not understood.
Result<ClusterOptions> parse_options(std::string_view toml);

class ClusterDirectory {
 public:
  // Makes the directory if `make`, else kNotFound where no `up` has been. Waits a while for another fsctl
  // (kBusy).
  static Result<ClusterDirectory> open(const std::string& path, bool make);

  [[nodiscard]] const std::string& path() const { return path_; }  // absolute, without symbolic links
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  // nullopt: no `up` has got that far.
  [[nodiscard]] Result<std::optional<ClusterOptions>> load() const;
  [[nodiscard]] Result<void> save(const ClusterOptions& options) const;

 private:
  std::string path_;
  UniqueFd lock_;
};

// Where the worker's images are, and what they take.
struct HeldMemory {
  std::string path;
  std::uint64_t bytes = 0;
  bool is_tmpfs = false;  // mounted by the worker; else a directory in /dev/shm
};
std::optional<HeldMemory> held_memory(const ClusterDirectory& directory);

// Frees that memory and deletes what gradfs has made in the directory, then the directory if nothing else is
// in it.
Result<void> purge(const ClusterDirectory& directory);

}  // namespace gradfs::fsctl
