// The daemon of a BareMount: a flat table of names and raw replies, so that nothing but FUSE itself is
// measured.
#define FUSE_USE_VERSION 314
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "fs/base/fd.h"
#include "tools/bench/bare_mount.h"

namespace gradfs::bench {
namespace {

// Of FUSE protocol 7.40, which the headers of Debian 12 do not carry.
struct InitOut740 {
  std::uint32_t major, minor, max_readahead, flags;
  std::uint16_t max_background, congestion_threshold;
  std::uint32_t max_write, time_gran;
  std::uint16_t max_pages, map_alignment;
  std::uint32_t flags2, max_stack_depth, unused[6];
};
static_assert(sizeof(InitOut740) == 64);
struct BackingMap {
  std::int32_t fd;
  std::uint32_t flags;
  std::uint64_t padding;
};
constexpr unsigned long kBackingOpen = _IOW(229, 1, BackingMap);
constexpr unsigned long kBackingClose = _IOW(229, 2, std::uint32_t);
constexpr std::uint32_t kInitExt = 1U << 30;                 // flags
constexpr std::uint32_t kPassthroughHigh = 1U << (37 - 32);  // flags2
constexpr std::uint32_t kOpenPassthrough = 1U << 7;          // fuse_open_out.open_flags
constexpr double kTimeout_s = 1000.0;

struct CreateOut {
  fuse_entry_out entry;
  fuse_open_out open;
};

struct Node {
  mode_t mode = 0;
  UniqueFd backing;
  int backing_id = 0;
  unsigned opens = 0;
};

struct Daemon {
  std::string backing;
  std::uint64_t* counts = nullptr;
  int device = -1;
  bool initialised = false;
  fuse_ino_t last_node = FUSE_ROOT_ID;
  std::map<std::pair<fuse_ino_t, std::string>, fuse_ino_t> names;
  std::unordered_map<fuse_ino_t, Node> nodes;
};

Daemon& daemon_of(fuse_req_t req) { return *static_cast<Daemon*>(fuse_req_userdata(req)); }

struct stat attributes(const Daemon& daemon, fuse_ino_t node) {
  struct stat out{};
  out.st_ino = node;
  out.st_mode = S_IFDIR | 0755;
  const auto found = daemon.nodes.find(node);
  if (found != daemon.nodes.end()) {
    struct stat image{};
    if (found->second.backing && ::fstat(found->second.backing.get(), &image) == 0) {
      out.st_size = image.st_size;
      out.st_blocks = image.st_blocks;
    }
    out.st_mode = found->second.mode;
  }
  out.st_nlink = S_ISDIR(out.st_mode) ? 2 : 1;
  return out;
}

fuse_entry_param entry_of(const Daemon& daemon, fuse_ino_t node) {
  fuse_entry_param out{};
  out.ino = node;
  out.attr_timeout = out.entry_timeout = kTimeout_s;
  out.attr = attributes(daemon, node);
  return out;
}

void on_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Daemon& daemon = daemon_of(req);
  const auto found = daemon.names.find({parent, name});
  if (found == daemon.names.end()) return void(fuse_reply_err(req, ENOENT));
  const fuse_entry_param entry = entry_of(daemon, found->second);
  fuse_reply_entry(req, &entry);
}

void on_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  const struct stat attr = attributes(daemon_of(req), node);
  fuse_reply_attr(req, &attr, kTimeout_s);
}

void on_setattr(fuse_req_t req, fuse_ino_t node, struct stat* wanted, int valid, fuse_file_info*) {
  Daemon& daemon = daemon_of(req);
  const auto found = daemon.nodes.find(node);
  if (found != daemon.nodes.end() && found->second.backing && (valid & FUSE_SET_ATTR_SIZE) != 0 &&
      ::ftruncate(found->second.backing.get(), wanted->st_size) != 0) {
    return void(fuse_reply_err(req, errno));
  }
  on_getattr(req, node, nullptr);
}

// 0, or an errno.
int open_backing(Daemon& daemon, Node& node, fuse_open_out& out) {
  if (node.backing && node.backing_id == 0) {
    BackingMap map{node.backing.get(), 0, 0};
    const int id = ::ioctl(daemon.device, kBackingOpen, &map);
    if (id <= 0) return id < 0 ? errno : EIO;
    node.backing_id = id;
  }
  if (node.backing) {
    out.open_flags = kOpenPassthrough;
    out.padding = static_cast<std::uint32_t>(node.backing_id);  // named backing_id since 7.40
  }
  ++node.opens;
  return 0;
}

void on_open(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  Daemon& daemon = daemon_of(req);
  fuse_open_out out{};
  const int failed = open_backing(daemon, daemon.nodes[node], out);
  if (failed != 0) return void(fuse_reply_err(req, failed));
  fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof out);
}

void on_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info*) {
  Daemon& daemon = daemon_of(req);
  Node made;
  made.mode = S_IFREG | (mode & 07777);
  if (!daemon.backing.empty()) {
    auto file = open_file(daemon.backing, O_TMPFILE | O_RDWR, 0600);
    if (!file) return void(fuse_reply_err(req, to_errno(file.error().code)));
    made.backing = std::move(file).value();
  }
  const fuse_ino_t node = ++daemon.last_node;
  daemon.names[{parent, name}] = node;
  Node& stored = daemon.nodes[node] = std::move(made);
  CreateOut out{};
  const int failed = open_backing(daemon, stored, out.open);
  if (failed != 0) return void(fuse_reply_err(req, failed));
  out.entry.nodeid = node;
  out.entry.entry_valid = out.entry.attr_valid = static_cast<std::uint64_t>(kTimeout_s);
  out.entry.attr.ino = node;
  out.entry.attr.mode = stored.mode;
  out.entry.attr.nlink = 1;
  fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof out);
}

void on_release(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  Daemon& daemon = daemon_of(req);
  const auto found = daemon.nodes.find(node);
  if (found != daemon.nodes.end() && --found->second.opens == 0 && found->second.backing_id != 0) {
    std::uint32_t id = static_cast<std::uint32_t>(std::exchange(found->second.backing_id, 0));
    ::ioctl(daemon.device, kBackingClose, &id);
  }
  fuse_reply_err(req, 0);
}

void on_flush(fuse_req_t req, fuse_ino_t, fuse_file_info*) { fuse_reply_err(req, 0); }
void on_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) { fuse_reply_err(req, 0); }

void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  Daemon& daemon = daemon_of(req);
  const fuse_ino_t node = ++daemon.last_node;
  daemon.names[{parent, name}] = node;
  daemon.nodes[node].mode = S_IFDIR | (mode & 07777);
  const fuse_entry_param entry = entry_of(daemon, node);
  fuse_reply_entry(req, &entry);
}

void on_remove(fuse_req_t req, fuse_ino_t parent, const char* name) {
  fuse_reply_err(req, daemon_of(req).names.erase({parent, name}) == 1 ? 0 : ENOENT);
}

void on_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned int flags) {
  Daemon& daemon = daemon_of(req);
  const auto found = daemon.names.find({parent, name});
  if (flags != 0) return void(fuse_reply_err(req, EINVAL));
  if (found == daemon.names.end()) return void(fuse_reply_err(req, ENOENT));
  const fuse_ino_t node = found->second;
  daemon.names.erase(found);
  daemon.names[{new_parent, new_name}] = node;
  fuse_reply_err(req, 0);
}

// Sent when the kernel drops the node; what has no name any more is freed.
void forget(Daemon& daemon, fuse_ino_t node) {
  const auto found = daemon.nodes.find(node);
  if (found == daemon.nodes.end() || found->second.opens > 0) return;
  for (const auto& [name, named] : daemon.names) {
    if (named == node) return;
  }
  daemon.nodes.erase(found);
}

void on_forget(fuse_req_t req, fuse_ino_t node, std::uint64_t) {
  Daemon& daemon = daemon_of(req);
  if (!daemon.backing.empty()) forget(daemon, node);  // without bytes there is nothing worth freeing
  fuse_reply_none(req);
}

void on_readdir(fuse_req_t req, fuse_ino_t, std::size_t, off_t, fuse_file_info*) {
  fuse_reply_buf(req, nullptr, 0);
}

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops out{};
  out.lookup = on_lookup;
  out.forget = on_forget;
  out.getattr = on_getattr;
  out.setattr = on_setattr;
  out.open = on_open;
  out.create = on_create;
  out.release = on_release;
  out.flush = on_flush;
  out.fsync = on_fsync;
  out.mkdir = on_mkdir;
  out.unlink = on_remove;
  out.rmdir = on_remove;
  out.rename = on_rename;
  out.readdir = on_readdir;
  return out;
}

ssize_t write_reply(int fd, iovec* iov, int count, void* context) {
  Daemon& daemon = *static_cast<Daemon*>(context);
  if (!daemon.initialised && count == 2 && iov[1].iov_len >= sizeof(InitOut740)) {
    daemon.initialised = true;
    auto* out = static_cast<InitOut740*>(iov[1].iov_base);
    out->flags |= kInitExt;
    out->flags2 |= kPassthroughHigh;
    out->max_stack_depth = 1;
    if (out->minor < 40) out->minor = 40;
  }
  return ::writev(fd, iov, count);
}

ssize_t read_request(int fd, void* buffer, std::size_t bytes, void* context) {
  const ssize_t got = ::read(fd, buffer, bytes);
  if (got >= static_cast<ssize_t>(sizeof(fuse_in_header))) {
    fuse_in_header header;
    std::memcpy(&header, buffer, sizeof header);
    if (header.opcode < kOpcodesMax) {
      std::atomic_ref(static_cast<Daemon*>(context)->counts[header.opcode])
          .fetch_add(1, std::memory_order_relaxed);
    }
  }
  return got;
}

}  // namespace

int serve_bare_mount(const std::string& path, const std::string& backing, std::uint64_t* counts, int ready) {
  Daemon daemon;
  daemon.backing = backing;
  daemon.counts = counts;
  const fuse_lowlevel_ops ops = operations();
  char program[] = "gradfs-bench";
  char* arguments[] = {program, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, arguments);
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, &daemon);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0) return 1;
  if (fuse_session_mount(session, path.c_str()) != 0) return 1;
  daemon.device = fuse_session_fd(session);
  fuse_custom_io io{};
  io.writev = write_reply;
  io.read = read_request;
  if (fuse_session_custom_io(session, &io, daemon.device) != 0) return 1;
  const char byte = 1;
  if (::write(ready, &byte, 1) == 1) fuse_session_loop(session);
  fuse_session_unmount(session);
  return 0;
}

}  // namespace gradfs::bench
