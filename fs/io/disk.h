// Disk: the seam for files on a local filesystem. Real ones are below; the simulated one is in sim_disk.h.
//
// Everything runs on one executor's thread and suspends there instead of blocking it. Paths are those of the
// operating system. Buffers and paths must live until the task has ended; operations must have ended before
// the executor goes. An operation ends when the device does: there is no deadline here, and nothing to
// cancel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fs/base/result.h"
#include "fs/net/executor.h"

namespace gradfs {

// Offsets, lengths and memory of direct I/O are multiples of this.
inline constexpr std::size_t kDirectAlignment = 4096;

// Memory for direct I/O: size rounded up to kDirectAlignment, zeroed. Move-only.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size);
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* data) const noexcept;
  };
  std::size_t size_;
  std::unique_ptr<std::byte, Free> data_;
};

struct OpenOptions {
  bool write = false;      // read and write; else read only
  bool create = false;     // mode 0600, where there is none
  bool exclusive = false;  // with create: kExists where there is one
  bool truncate = false;
  bool direct = false;  // O_DIRECT; where the filesystem knows none, the page cache is used
};

// An open file, closed by the destructor. May outlive its disk. Operations may overlap; those on overlapping
// ranges happen in any order.
class File {
 public:
  virtual ~File() = default;
  // How many bytes were read: fewer than asked for only at the end of the file.
  virtual Task<Result<std::size_t>> read_at(std::span<std::byte> out, std::uint64_t offset) = 0;
  // All of it, or an error; then any part may have been written.
  virtual Task<Result<void>> write_at(std::span<const std::byte> in, std::uint64_t offset) = 0;
  // Returns when data and size are on stable storage. After an error nothing is known about what was written
  // since the last success: give the file up. The name is the directory's (sync_directory).
  virtual Task<Result<void>> sync() = 0;
  virtual Result<std::uint64_t> size() = 0;
};

class Disk {
 public:
  virtual ~Disk() = default;
  virtual Task<Result<std::unique_ptr<File>>> open(std::string path, OpenOptions options) = 0;
  // Atomic; replaces a file at `to`. kNotFound without `from`.
  virtual Task<Result<void>> rename(std::string from, std::string to) = 0;
  // A file, or an empty directory (else kNotEmpty).
  virtual Task<Result<void>> remove(std::string path) = 0;
  // Names in order, without "." and "..".
  virtual Task<Result<std::vector<std::string>>> list(std::string directory) = 0;
  // Mode 0700. kExists where there is something.
  virtual Task<Result<void>> make_directory(std::string path) = 0;
  // Returns when the names made, moved and removed in the directory are on stable storage.
  virtual Task<Result<void>> sync_directory(std::string directory) = 0;
};

// By io_uring, at most 64 operations under way. kNotSupported where the kernel or a container forbids it.
Result<std::unique_ptr<Disk>> make_uring_disk(Executor& executor);
// By system calls on `threads` threads (at least 1).
std::unique_ptr<Disk> make_threaded_disk(Executor& executor, unsigned threads);
// io_uring where it can be had, else two threads.
std::unique_ptr<Disk> make_disk(Executor& executor);

// Makes `bytes` the contents of `path`, atomically and durably: after a crash at any time the file holds what
// it held before or all of `bytes`, and after success the latter. Writes PATH.tmp on the way (a crash may
// leave it; the next call replaces it). One caller at a time for a path.
Task<Result<void>> replace_file(Disk& disk, std::string path, std::span<const std::byte> bytes);
// The whole of a file of at most limit_bytes, else kTooBig.
Task<Result<std::string>> read_file(Disk& disk, std::string path, std::size_t limit_bytes);

}  // namespace gradfs
