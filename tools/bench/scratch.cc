#include "tools/bench/scratch.h"

#include <sys/mount.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace gradfs::bench {

Result<ScratchDirectory> ScratchDirectory::make(const std::string& parent) {
  ScratchDirectory out;
  std::string pattern = parent + "/gradfs-bench-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) return errno_error(pattern);
  out.path_ = pattern;
  return out;
}

ScratchDirectory& ScratchDirectory::operator=(ScratchDirectory&& other) noexcept {
  if (this != &other) {
    remove();
    path_ = std::exchange(other.path_, {});
  }
  return *this;
}

void ScratchDirectory::remove() noexcept {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  path_.clear();
}

Result<ScratchTmpfs> ScratchTmpfs::mount(std::uint64_t size_bytes) {
  ScratchTmpfs out;
  GRADFS_TRY(out.directory_, ScratchDirectory::make(std::filesystem::temp_directory_path().string()));
  const std::string& path = out.directory_.path();
  const std::string options =
      "size=" + std::to_string(size_bytes) + ",nr_inodes=0,mode=0700,huge=within_size";
  if (::mount("gradfs-bench", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    if (errno == EPERM)
      return Error(Errc::kPermission, "gradfs-bench mounts a tmpfs to compare with: run it as root");
    return errno_error("mount tmpfs on " + path);
  }
  out.path_ = path;
  return out;
}

ScratchTmpfs::~ScratchTmpfs() {
  if (!path_.empty()) ::umount2(path_.c_str(), MNT_DETACH);
}

PinnedThread::PinnedThread() {
  if (::sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  int last = -1;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &before_)) last = i;
  }
  if (last < 0) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  if (::sched_setaffinity(0, sizeof one, &one) == 0) processor_ = last;
}

PinnedThread::~PinnedThread() {
  if (processor_ >= 0) ::sched_setaffinity(0, sizeof before_, &before_);
}

}  // namespace gradfs::bench
