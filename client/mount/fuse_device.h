// FuseDevice: the libfuse session, with what libfuse 3.14 does not know: passthrough (FUSE 7.40) and
// HANDLE_KILLPRIV_V2. The only place with layouts of the kernel's protocol.
//
// One thread. Notices to the kernel (invalidate) may block on pages that wait for our own answers: send them
// from another thread.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>

#include <cstdint>
#include <string>

#include "fs/base/fd.h"

namespace gradfs {

struct FuseDeviceOptions {
  std::string mount_point;
  std::string source;          // shown by mount(8)
  std::string kernel_options;  // for the mount system call: "ro,nosuid,..."
  bool passthrough = true;     // ask the kernel for it
};

class FuseDevice {
 public:
  FuseDevice() = default;
  ~FuseDevice();
  FuseDevice(const FuseDevice&) = delete;
  FuseDevice& operator=(const FuseDevice&) = delete;

  Result<void> mount(const FuseDeviceOptions& options, const fuse_lowlevel_ops& operations, void* user);
  void unmount();
  [[nodiscard]] int fd() const;
  [[nodiscard]] fuse_session* session() const { return session_; }

  // Handles requests that are there, at most a batch. false: the session has ended (unmounted).
  bool serve_ready();

  // Registers an image with the kernel: a backing id (> 0), for open_reply. kNotSupported, kPermission: this
  // mount has no passthrough.
  Result<int> register_backing(const UniqueFd& image);
  void unregister_backing(int id);

 private:
  fuse_session* session_ = nullptr;
  fuse_buf buffer_{};
};

// How an open is answered.
struct OpenReply {
  std::uint64_t handle = 0;
  int backing_id = 0;  // 0: no passthrough
  bool direct_io = false;
  bool no_flush = false;
};
// As libfuse's own replies: 0, or a negative errno when the caller has not got it.
int reply_open(fuse_req_t request, const OpenReply& reply);
int reply_create(fuse_req_t request, const fuse_entry_param& entry, const OpenReply& reply);

}  // namespace gradfs
