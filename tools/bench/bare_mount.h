// A bare FUSE mount to compare with: the least that a daemon can do. Names are in its memory, every answer is
// given at once, by one thread that has nothing else to do; the bytes of files are in a tmpfs and reached by
// passthrough.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "fs/base/result.h"
#include "tools/bench/scratch.h"

namespace gradfs::bench {

// Requests that the kernel sent, by what the sender does meanwhile.
struct RequestCounts {
  std::uint64_t waited = 0;    // a system call waits for the answer
  std::uint64_t unwaited = 0;  // RELEASE, FORGET: sent, and the caller goes on
};

// The daemon is a child process; it ends, and unmounts, when the BareMount does or when its parent dies.
class BareMount {
 public:
  // backing: a directory in a tmpfs, for the bytes of files: opens are passthrough. "": files have no bytes,
  // and a create makes nothing but a name. Start it before there are threads and before the thread is pinned.
  static Result<BareMount> start(const std::string& backing);
  BareMount() = default;
  BareMount(BareMount&& other) noexcept;
  BareMount& operator=(BareMount&&) = delete;
  ~BareMount();

  [[nodiscard]] const std::string& path() const noexcept { return directory_.path(); }
  // Since the start.
  [[nodiscard]] RequestCounts requests() const;

 private:
  void stop() noexcept;

  ScratchDirectory directory_;
  const std::uint64_t* counts_ = nullptr;  // by opcode; shared with the child
  pid_t child_ = -1;
};

// The child's part: mounts on `path` and serves until SIGTERM. counts has kOpcodesMax entries. ready: a pipe
// that gets one byte when the mount is usable, or nothing. Returns the exit status.
inline constexpr std::size_t kOpcodesMax = 64;
int serve_bare_mount(const std::string& path, const std::string& backing, std::uint64_t* counts, int ready);

}  // namespace gradfs::bench
