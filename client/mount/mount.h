// Mount: a FUSE session over a master and the workers of this host.
//
// Every operation is a coroutine on one executor, which also reads the FUSE device: what is known is answered
// at once, the rest when the RPC's answer comes; no thread waits. Exactly one reply per request.
//   operations.cc  the table for libfuse      entries.cc   lookup, create names, remove, rename
//   attributes.cc  getattr, setattr, xattrs   directory.cc readdir       files.cc  open, read, write, close
//   special.cc     files of a model directory that are not images        landing.cc, push.cc  when a file is
//   a push
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/mount/fuse_device.h"
#include "client/mount/request.h"
#include "fs/base/ids.h"
#include "fs/net/rpc.h"

namespace gradfs {

enum class PassthroughMode { kAuto, kOn, kOff };

struct MountOptions {
  std::string master;       // ADDR:PORT
  std::string subpath;      // below the root of gradfs; "" is all of it
  std::string mount_point;  // absolute
  std::string kernel_options;
  PassthroughMode passthrough = PassthroughMode::kAuto;
  std::int64_t timeout_ns = 300 * kSecond_ns;  // how long a request waits for a master or worker that is away
};

// A write-open of a file in gradients/, slots/, or of a staged assignment.
struct OpenFile {
  InodeId inode;
  int flags = 0;
  bool write = false;
  pid_t opener = 0;     // thread group
  bool landed = false;  // its push was begun: never again by this handle
  bool writer_killed = false;
  bool dirty = false;  // inline text was changed
  std::string text;    // of an inline or made file, as of the open
  InodeId staging;     // assignment: where writes go
  UniqueFd staging_image;
};

// An inode that the kernel knows. Lives while the kernel does, or while it is open.
struct Node {
  wire::Attr attr;
  std::uint64_t lookups = 0;
  InodeId parent;  // where it was last seen; for landing
  std::string name;
  unsigned opens = 0;
  unsigned write_opens = 0;
  UniqueFd image;  // while open
  int backing_id = 0;
  bool unlinked = false;
  bool opening = false;              // an open is fetching the image
  std::uint64_t committed_size = 0;  // what the master knows
  std::int64_t committed_mtime_ns = 0;
  unsigned frozen = 0;  // pushes under way: whoever wants to open it for writing waits
};

class Mount {
 public:
  Mount(Executor& executor, Transport& transport, MountOptions options);
  ~Mount();

  // Connects and mounts. The session is usable when `ready` is called (INIT answered). kUnavailable: no
  // master.
  Task<Result<void>> start(std::function<void()> ready);
  // Unmounts and ends what is under way.
  Task<> stop();
  // Called when the kernel has ended the session (umount).
  std::function<void()> on_unmounted;

 private:
  friend struct Operations;

  // mount.cc
  Task<Result<void>> find_root();
  Task<> keep_session();
  bool serve();
  [[nodiscard]] InodeId to_inode(fuse_ino_t node) const {
    return node == FUSE_ROOT_ID ? root_ : InodeId{node};
  }
  [[nodiscard]] fuse_ino_t to_node(InodeId inode) const {
    return inode == root_ ? FUSE_ROOT_ID : inode.value;
  }
  Node& node(InodeId inode) { return nodes_[inode]; }
  [[nodiscard]] wire::Role role_of(InodeId inode) const;
  [[nodiscard]] BindingId binding_of(InodeId inode) const;
  void remember(const wire::Attr& attr);
  void forget_if_unused(InodeId inode);
  [[nodiscard]] RpcClient& worker(const wire::WorkerAddress& address);
  Task<Result<RpcClient*>> worker_of_binding(BindingId binding);
  template <class Method>
  Task<Result<typename Method::Response>> ask_master(typename Method::Request request);
  void reply_error(Request request, const Error& error);
  void count_lookup(const wire::Attr& attr, InodeId parent, const std::string& name);
  [[nodiscard]] fuse_entry_param entry_of(const wire::Attr& attr, InodeId parent);
  [[nodiscard]] struct stat stat_of(const wire::Attr& attr);
  [[nodiscard]] double attr_timeout(const wire::Attr& attr) const;

  // entries.cc
  Task<> lookup(Request request, InodeId parent, std::string name);
  Task<> make(Request request, InodeId parent, std::string name, wire::FileType type, mode_t mode,
              std::string target);
  Task<> remove(Request request, InodeId parent, std::string name, bool directory);
  Task<> rename(Request request, InodeId parent, std::string name, InodeId new_parent, std::string new_name,
                unsigned flags);
  void forget(InodeId inode, std::uint64_t lookups);
  Task<> invalidate_entry(InodeId parent, std::string name);

  // attributes.cc
  Task<> getattr(Request request, InodeId inode, std::uint64_t handle);
  Task<> setattr(Request request, InodeId inode, struct stat attr, int valid, std::uint64_t handle);
  Task<Result<void>> truncate(InodeId inode, std::uint64_t size);
  Task<> getxattr(Request request, InodeId inode, std::string name, std::size_t size);
  Task<> setxattr(Request request, InodeId inode, std::string name, std::string value, int flags);
  Task<> listxattr(Request request, InodeId inode, std::size_t size);
  Task<> removexattr(Request request, InodeId inode, std::string name);
  Task<> statfs(Request request);

  // directory.cc
  struct DirectoryHandle;
  void opendir(Request request, const fuse_file_info* info);
  Task<> readdir(Request request, InodeId inode, std::size_t size, off_t offset, std::uint64_t handle,
                 bool plus);
  void releasedir(Request request, std::uint64_t handle);
  Task<Result<void>> load_directory(InodeId inode, std::shared_ptr<DirectoryHandle> handle);

  // files.cc
  Task<> open(Request request, InodeId inode, int flags);
  Task<> create(Request request, InodeId parent, std::string name, mode_t mode, int flags);
  Task<Result<void>> prepare_image(InodeId inode, bool write);
  Result<OpenReply> add_open(InodeId inode, std::shared_ptr<OpenFile> file);
  OpenReply add_text_open(std::shared_ptr<OpenFile> file);
  void drop_open(InodeId inode, bool write);
  void close_handle(std::uint64_t handle);
  void read(Request request, OpenFile& file, std::size_t size, off_t offset);
  Task<> flush(Request request, std::uint64_t handle);
  Task<> release_the_dying(Request request);
  Task<> fsync(Request request, std::uint64_t handle);
  Task<> fsyncdir(Request request);
  void release(Request request, std::uint64_t handle);
  Task<> finish_release(std::shared_ptr<OpenFile> file);
  void lseek(Request request, OpenFile& file, off_t offset, int whence);

  // writes.cc
  void write(Request request, std::shared_ptr<OpenFile> file, const char* data, std::size_t size,
             off_t offset);
  Task<> write_if_there_is_room(Request request, std::shared_ptr<OpenFile> file, std::string data,
                                off_t offset);
  void write_text(Request request, OpenFile& file, const char* data, std::size_t size, off_t offset);
  Task<> fallocate(Request request, std::shared_ptr<OpenFile> file, int mode, off_t offset, off_t length);
  Task<Result<void>> take_room(int image, off_t offset, std::uint64_t size);
  void note_bounds(RpcClient& worker, const wire::OpenImageResponse& image);

  Task<Result<void>> commit_attributes(InodeId inode, bool end_lease);
  std::shared_ptr<OpenFile> find_open(std::uint64_t handle);
  [[nodiscard]] int image_fd(const OpenFile& file) const;

  // special.cc
  Task<Result<std::string>> status_text(BindingId binding);
  Task<Result<void>> open_special(std::shared_ptr<OpenFile> file);
  Task<Result<void>> stage_assignment(std::shared_ptr<OpenFile> file);
  [[nodiscard]] static bool is_text(wire::Role role, const wire::Attr& attr);

  // landing.cc
  enum class Landing { kNow, kLater, kNever };
  Task<Landing> decide(std::shared_ptr<OpenFile> file, pid_t closer);
  Task<bool> someone_holds(std::vector<pid_t> processes, InodeId inode, bool may_be_mapped);
  Task<> look_for_maps(std::vector<pid_t> processes, std::uint64_t number, std::function<void(bool)> found);
  Task<bool> wait_unmapped(InodeId inode);
  [[nodiscard]] bool is_drop(const OpenFile& file);

  // push.cc
  Task<Result<wire::PushResponse>> land(std::shared_ptr<OpenFile> file);
  Task<> land_and_reply(Request request, std::shared_ptr<OpenFile> file);
  Task<> sync_slot(Request request, InodeId inode);
  Task<Result<wire::PushResponse>> push(wire::PushRequest request);
  Task<> reject(std::shared_ptr<OpenFile> file, std::string reason);
  Task<Result<void>> make_visible(BindingId binding);
  [[nodiscard]] wire::PushRequest push_request(InodeId inode, wire::PushKind kind);

  Request begin(fuse_req_t raw);
  Task<> honour_interrupt(Request request);

  Executor& executor_;
  Transport& transport_;
  const MountOptions options_;
  SystemRandom random_;
  RpcClient master_;
  Scope scope_;
  FuseDevice device_;
  WorkerPool helper_;  // notices to the kernel, and reads of /proc that may block
  std::function<void()> ready_;
  bool passthrough_ = false;  // of this mount; fixed at the first open
  bool passthrough_known_ = false;
  bool plain_ = false;  // the kernel was not asked for passthrough
  InodeId root_ = kRootInode;
  SessionId session_;
  std::string device_number_;
  std::uint64_t next_ordinal_ = 1;
  std::uint64_t next_handle_ = 1;
  // The worker, where its memory has no limit of its own: it is asked before bytes are written.
  RpcClient* unbounded_ = nullptr;
  std::uint64_t room_bytes_ = 0;  // that it has said are left, and nobody has written
  std::unordered_map<InodeId, Node> nodes_;
  std::unordered_map<std::uint64_t, std::shared_ptr<OpenFile>> open_files_;
  std::unordered_map<std::uint64_t, std::shared_ptr<DirectoryHandle>> directories_;
  std::map<std::string, std::unique_ptr<RpcClient>> workers_;  // by Unix socket
  std::map<std::uint64_t, wire::WorkerAddress> addresses_;     // home of a binding
  std::map<BindingId, InodeId> models_;                        // model.safetensors that the kernel knows
  Notify node_changed_;
  bool stopping_ = false;
};

template <class Method>
Task<Result<typename Method::Response>> Mount::ask_master(typename Method::Request request) {
  const CallOptions options{.timeout_ns = options_.timeout_ns};
  co_return co_await master_.call<Method>(std::move(request), options);
}

}  // namespace gradfs
