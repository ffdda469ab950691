#include "client/mount/fuse_device.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace gradfs {
namespace {

// FUSE 7.40, which the 6.1 headers of Debian 12 do not carry.
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
constexpr std::uint32_t kInitExt = 1U << 30;
constexpr std::uint32_t kHandleKillprivV2 = 1U << 28;
constexpr std::uint32_t kPassthroughHigh = 1U << (37 - 32);
constexpr std::uint32_t kOpenDirectIo = 1U << 0;
constexpr std::uint32_t kOpenNoFlush = 1U << 5;
constexpr std::uint32_t kOpenPassthrough = 1U << 7;
constexpr int kBatch = 32;

// libfuse gives one `userdata` for its callbacks of a session; the INIT edit needs to know what to ask for.
bool ask_passthrough = false;
bool init_seen = false;

ssize_t edit_init_reply(int fd, iovec* vector, int count, void*) {
  if (!init_seen && count == 2 && vector[1].iov_len >= sizeof(InitOut740)) {
    init_seen = true;
    auto* out = static_cast<InitOut740*>(vector[1].iov_base);
    out->flags |= kInitExt | kHandleKillprivV2;
    if (ask_passthrough) {
      out->flags2 |= kPassthroughHigh;
      out->max_stack_depth = 1;
    }
    if (out->minor < 40) out->minor = 40;
  }
  return ::writev(fd, vector, count);
}

ssize_t plain_read(int fd, void* buffer, std::size_t length, void*) { return ::read(fd, buffer, length); }

fuse_open_out open_out(const OpenReply& reply) {
  fuse_open_out out{};
  out.fh = reply.handle;
  if (reply.backing_id > 0) {
    out.open_flags |= kOpenPassthrough;
    out.padding = static_cast<std::uint32_t>(reply.backing_id);  // named backing_id since 7.40
  }
  if (reply.direct_io) out.open_flags |= kOpenDirectIo;
  if (reply.no_flush) out.open_flags |= kOpenNoFlush;
  return out;
}

void split_seconds(double timeout, std::uint64_t* seconds, std::uint32_t* nanoseconds) {
  *seconds = static_cast<std::uint64_t>(timeout);
  *nanoseconds = static_cast<std::uint32_t>((timeout - static_cast<double>(*seconds)) * 1e9);
}

}  // namespace

FuseDevice::~FuseDevice() {
  if (session_ != nullptr) {
    unmount();
    fuse_session_destroy(session_);
  }
  std::free(buffer_.mem);
}

Result<void> FuseDevice::mount(const FuseDeviceOptions& options, const fuse_lowlevel_ops& operations,
                               void* user) {
  ask_passthrough = options.passthrough;
  std::string source = options.source;
  for (std::size_t at = 0; (at = source.find_first_of(",\\", at)) != std::string::npos; at += 2)
    source.insert(at, "\\");
  std::string fuse_options = "default_permissions,allow_other,subtype=gradfs,fsname=" + source;
  if (!options.kernel_options.empty()) fuse_options += "," + options.kernel_options;
  std::vector<std::string> words{"gradfs-mount", "-o", fuse_options};
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
  session_ = fuse_session_new(&args, &operations, sizeof operations, user);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return Error(Errc::kInvalid, "FUSE does not take these options: " + fuse_options);
  if (fuse_session_mount(session_, options.mount_point.c_str()) != 0) {
    fuse_session_destroy(session_);
    session_ = nullptr;
    return Error(Errc::kIo, "cannot mount on " + options.mount_point);
  }
  ::fcntl(fd(), F_SETFL, ::fcntl(fd(), F_GETFL) | O_NONBLOCK);
  fuse_custom_io io{};
  io.writev = edit_init_reply;
  io.read = plain_read;
  if (fuse_session_custom_io(session_, &io, fd()) != 0) return Error(Errc::kIo, "fuse_session_custom_io");
  return ok();
}

void FuseDevice::unmount() {
  if (session_ != nullptr) fuse_session_unmount(session_);
}

int FuseDevice::fd() const { return fuse_session_fd(session_); }

bool FuseDevice::serve_ready() {
  for (int i = 0; i < kBatch; ++i) {
    const int n = fuse_session_receive_buf(session_, &buffer_);
    if (n == -EINTR || n == -EAGAIN) return true;
    if (n <= 0) return false;
    fuse_session_process_buf(session_, &buffer_);
    if (fuse_session_exited(session_) != 0) return false;
  }
  return true;
}

Result<int> FuseDevice::register_backing(const UniqueFd& image) {
  BackingMap map{image.get(), 0, 0};
  const int id = ::ioctl(fd(), kBackingOpen, &map);
  if (id <= 0) return errno_error("register image with the kernel");
  return id;
}

void FuseDevice::unregister_backing(int id) {
  auto number = static_cast<std::uint32_t>(id);
  ::ioctl(fd(), kBackingClose, &number);
}

int reply_open(fuse_req_t request, const OpenReply& reply) {
  const fuse_open_out out = open_out(reply);
  return fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out);
}

int reply_create(fuse_req_t request, const fuse_entry_param& entry, const OpenReply& reply) {
  struct {
    fuse_entry_out entry;
    fuse_open_out open;
  } out{};
  out.entry.nodeid = entry.ino;
  out.entry.generation = entry.generation;
  split_seconds(entry.entry_timeout, &out.entry.entry_valid, &out.entry.entry_valid_nsec);
  split_seconds(entry.attr_timeout, &out.entry.attr_valid, &out.entry.attr_valid_nsec);
  const struct stat& from = entry.attr;
  fuse_attr& to = out.entry.attr;
  to.ino = from.st_ino;
  to.size = static_cast<std::uint64_t>(from.st_size);
  to.blocks = static_cast<std::uint64_t>(from.st_blocks);
  to.atime = static_cast<std::uint64_t>(from.st_atim.tv_sec);
  to.atimensec = static_cast<std::uint32_t>(from.st_atim.tv_nsec);
  to.mtime = static_cast<std::uint64_t>(from.st_mtim.tv_sec);
  to.mtimensec = static_cast<std::uint32_t>(from.st_mtim.tv_nsec);
  to.ctime = static_cast<std::uint64_t>(from.st_ctim.tv_sec);
  to.ctimensec = static_cast<std::uint32_t>(from.st_ctim.tv_nsec);
  to.mode = from.st_mode;
  to.nlink = static_cast<std::uint32_t>(from.st_nlink);
  to.uid = from.st_uid;
  to.gid = from.st_gid;
  to.rdev = static_cast<std::uint32_t>(from.st_rdev);
  to.blksize = static_cast<std::uint32_t>(from.st_blksize);
  out.open = open_out(reply);
  return fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out);
}

}  // namespace gradfs
