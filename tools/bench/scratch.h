// Places to measure in: directories that vanish with their owner, a tmpfs like the worker's, a pinned thread.
#pragma once

#include <sched.h>

#include <cstdint>
#include <string>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::bench {

// A fresh directory PARENT/gradfs-bench-XXXXXX; removed with all that is in it.
class ScratchDirectory {
 public:
  static Result<ScratchDirectory> make(const std::string& parent);
  ScratchDirectory() = default;
  ScratchDirectory(ScratchDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchDirectory& operator=(ScratchDirectory&& other) noexcept;
  ~ScratchDirectory() { remove(); }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  void remove() noexcept;
  std::string path_;
};

// A tmpfs mounted as the worker mounts its own (huge=within_size, inodes not counted), in a scratch directory
// of its own. Needs CAP_SYS_ADMIN: kPermission says so in one line.
class ScratchTmpfs {
 public:
  static Result<ScratchTmpfs> mount(std::uint64_t size_bytes);
  ScratchTmpfs() = default;
  ScratchTmpfs(ScratchTmpfs&& other) noexcept
      : directory_(std::move(other.directory_)), path_(std::exchange(other.path_, {})) {}
  ScratchTmpfs& operator=(ScratchTmpfs&&) = delete;
  ~ScratchTmpfs();

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  ScratchDirectory directory_;
  std::string path_;
};

// Keeps the calling thread on the last processor that it may use, for as long as this lives.
class PinnedThread {
 public:
  PinnedThread();
  ~PinnedThread();
  PinnedThread(const PinnedThread&) = delete;
  PinnedThread& operator=(const PinnedThread&) = delete;

  [[nodiscard]] int processor() const noexcept { return processor_; }  // -1: could not be pinned

 private:
  cpu_set_t before_{};
  int processor_ = -1;
};

}  // namespace gradfs::bench
