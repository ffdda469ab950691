// Filesystem: gradfs by RPC, for tools. Paths begin at gradfs's root. What is created belongs to the calling
// user.
//
// One executor's thread. Errors carry a whole line in `detail`, which names the path. Every call has a
// deadline.
//
//   Filesystem fs(executor, transport, "127.0.0.1:7400", "fsctl");
//   GRADFS_CO_TRYV(co_await fs.connect(kConnectTimeout_ns));
//   GRADFS_CO_TRY(Node node, co_await fs.resolve("/models/mnist"));
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/base/fd.h"
#include "fs/base/ids.h"
#include "fs/net/rpc.h"

namespace gradfs {

inline constexpr int kSymlinksMax = 40;
inline constexpr std::int64_t kCallTimeout_ns = 30 * kSecond_ns;

// Where a path leads. The root is its own parent and has no name.
struct Node {
  wire::Attr attr;
  InodeId parent;
  std::string name;
  [[nodiscard]] InodeId inode() const { return InodeId{attr.inode()}; }
};

// A file that is open for writing, until close_file().
struct NewFile {
  wire::Attr attr;
  wire::WorkerAddress home;
  UniqueFd image;  // O_RDWR; its blocks are allocated
  [[nodiscard]] InodeId inode() const { return InodeId{attr.inode()}; }
};

class Filesystem {
 public:
  // address: ADDR:PORT. executor and transport must outlive it.
  Filesystem(Executor& executor, Transport& transport, std::string address, std::string program);
  ~Filesystem();
  Filesystem(const Filesystem&) = delete;
  Filesystem& operator=(const Filesystem&) = delete;

  // First of all calls.
  Task<Result<wire::HelloResponse>> connect(std::int64_t timeout_ns);
  // Ends the session, if files were made. Without it the master ends the session when its lease runs out.
  Task<> disconnect();

  // A call to the master, with kCallTimeout_ns; what: begins the error's line.
  template <class Method>
  Task<Result<typename Method::Response>> call(typename Method::Request request, std::string what);
  // A worker that answers; kUnavailable, at once the second time, if it does not. The client lives as long as
  // this object.
  Task<Result<RpcClient*>> worker(wire::WorkerAddress address);
  // The address of a worker by its id, from the master.
  Task<Result<wire::WorkerAddress>> worker_address(WorkerId worker);

  // Follows at most kSymlinksMax symbolic links; absolute ones begin at gradfs's root.
  Task<Result<Node>> resolve(std::string path, bool follow_last = true);
  Task<Result<wire::Attr>> attributes(InodeId inode);
  // All entries, in the order of their names. bounded: kTooBig beyond a million.
  Task<Result<std::vector<wire::DirectoryEntry>>> list(InodeId directory);

  // mkdir -p. The umask applies.
  Task<Result<Node>> make_directories(std::string path);
  Task<Result<wire::Attr>> make_directory(InodeId parent, std::string name);
  // A new file with `bytes` bytes of zeros, allocated. kExists; kNoSpace.
  Task<Result<NewFile>> create_file(InodeId parent, std::string name, std::uint64_t bytes);
  // Tells the master that this process still writes; call it at least every few seconds between create and
  // close.
  Task<Result<void>> keep_alive();
  // Records the size of the image and the time.
  Task<Result<void>> close_file(NewFile file);
  // The image of an existing file, O_RDWR. Only on the host of its worker.
  Task<Result<UniqueFd>> open_image(wire::Attr attr);

  Task<Result<void>> rename(InodeId parent, std::string name, InodeId new_parent, std::string new_name,
                            bool no_replace);
  // rm -r of an entry.
  Task<Result<void>> remove_tree(InodeId parent, std::string name);

  Task<Result<std::string>> get_xattr(InodeId inode, std::string name);
  Task<Result<void>> set_xattr(InodeId inode, std::string name, std::string value);

  [[nodiscard]] RpcClient& master();
  [[nodiscard]] const std::string& address() const;
  [[nodiscard]] Executor& executor();

 private:
  struct Impl;
  Task<Result<Node>> walk(std::string path, bool follow_last, bool make);
  Task<Result<Node>> step(Node from, std::string name, bool make);
  Task<Result<std::uint64_t>> session();
  Task<Result<UniqueFd>> fetch_image(wire::WorkerAddress home, InodeId inode, bool create,
                                     std::uint64_t bytes);
  Task<Result<void>> remove_below(InodeId directory, int depth);
  std::unique_ptr<Impl> impl_;
};

// The same error with "WHAT: TEXT: DETAIL" as its line; where nobody answers the detail says it all.
Error about(const std::string& what, const Error& error);

template <class Method>
Task<Result<typename Method::Response>> Filesystem::call(typename Method::Request request, std::string what) {
  const CallOptions options{.timeout_ns = kCallTimeout_ns};
  auto reply = co_await master().call<Method>(std::move(request), options);
  if (!reply) co_return about(what, reply.error());
  co_return reply;
}

}  // namespace gradfs
