#include "tools/bench/bare_mount.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "fs/base/fd.h"

namespace gradfs::bench {
namespace {

constexpr int kStartTimeout_ms = 10'000;
constexpr int kStopTimeout_ms = 3'000;
constexpr std::size_t kCountsBytes = kOpcodesMax * sizeof(std::uint64_t);

bool wait_for_exit(pid_t child, int timeout_ms) {
  for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms += 5) {
    if (::waitpid(child, nullptr, WNOHANG) != 0) return true;
    ::usleep(5000);
  }
  return false;
}

}  // namespace

BareMount::BareMount(BareMount&& other) noexcept
    : directory_(std::move(other.directory_)),
      counts_(std::exchange(other.counts_, nullptr)),
      child_(std::exchange(other.child_, -1)) {}

Result<BareMount> BareMount::start(const std::string& backing) {
  BareMount out;
  GRADFS_TRY(out.directory_, ScratchDirectory::make(std::filesystem::temp_directory_path().string()));
  void* shared = ::mmap(nullptr, kCountsBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return errno_error("mmap");
  auto* counts = static_cast<std::uint64_t*>(shared);
  out.counts_ = counts;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe");
  UniqueFd ready(ends[0]);
  UniqueFd child_end(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return errno_error("fork");
  if (child == 0) {
    std::signal(SIGTERM, SIG_DFL);  // libfuse puts its handler only where there is none
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    std::signal(SIGINT, SIG_IGN);  // a terminal sends it to all: the parent decides when to end
    ::close(ready.release());
    ::_exit(serve_bare_mount(out.path(), backing, counts, child_end.get()));
  }
  out.child_ = child;
  child_end.reset();
  pollfd wait{ready.get(), POLLIN, 0};
  char byte = 0;
  if (::poll(&wait, 1, kStartTimeout_ms) != 1 || ::read(ready.get(), &byte, 1) != 1) {
    return Error(
        Errc::kPermission,
        "cannot make a bare passthrough mount to compare with: it needs root, /dev/fuse and Linux 6.9");
  }
  struct stat info{};
  ::stat((out.path() + "/none").c_str(), &info);  // is answered after INIT, so INIT is behind us
  return out;
}

void BareMount::stop() noexcept {
  if (child_ > 0) {
    ::kill(child_, SIGTERM);
    if (!wait_for_exit(child_, kStopTimeout_ms)) {
      ::umount2(path().c_str(), MNT_DETACH);
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
    ::umount2(path().c_str(), MNT_DETACH);
  }
  child_ = -1;
  if (counts_ != nullptr) ::munmap(const_cast<std::uint64_t*>(counts_), kCountsBytes);
  counts_ = nullptr;
}

BareMount::~BareMount() { stop(); }

RequestCounts BareMount::requests() const {
  RequestCounts out;
  for (std::size_t opcode = 0; opcode < kOpcodesMax; ++opcode) {
    auto& shared = const_cast<std::uint64_t&>(counts_[opcode]);
    const std::uint64_t count = std::atomic_ref(shared).load(std::memory_order_relaxed);
    const bool unwaited = opcode == FUSE_RELEASE || opcode == FUSE_RELEASEDIR || opcode == FUSE_FORGET ||
                          opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
    (unwaited ? out.unwaited : out.waited) += count;
  }
  return out;
}

}  // namespace gradfs::bench
