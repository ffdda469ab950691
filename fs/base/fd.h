// UniqueFd: owns one file descriptor. Mapping: owns one mmap. Both move-only.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "fs/base/result.h"

namespace gradfs {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  explicit operator bool() const noexcept { return valid(); }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void reset(int fd = -1) noexcept;
  // A second descriptor of the same open file (close-on-exec).
  [[nodiscard]] Result<UniqueFd> duplicate() const;

 private:
  int fd_ = -1;
};

// open(2) / openat(2) with O_CLOEXEC; the path is in the error.
Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0600);
Result<UniqueFd> open_file_at(const UniqueFd& directory, const std::string& name, int flags,
                              unsigned mode = 0600);

// A mapping of a file, [0, size). Unmapped by the destructor. A store or load beyond the file's end is
// SIGBUS: guard reads of files that others may truncate (sigbus.h).
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  // Shared map; size 0 gives an empty map. writable needs a descriptor opened O_RDWR.
  // populate: page tables are filled at once, for a file that will be read from end to end.
  static Result<Mapping> map(const UniqueFd& fd, std::size_t size, bool writable, bool populate = false);

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Whether a connected TCP socket has itself as its peer: a connect to a free port of the local ephemeral range
// may be given that very port as its source, and then succeeds though nothing listens (simultaneous open,
// RFC 9293, 3.5). Such a socket must be closed: as long as it is open, no server can bind the port.
bool is_connected_to_itself(int fd) noexcept;

// Whole-buffer loops over read/write at an offset; a short read (end of file) is kCorrupt.
Result<void> read_fully_at(int fd, std::span<std::byte> out, std::size_t offset);
Result<void> write_fully_at(int fd, std::span<const std::byte> in, std::size_t offset);
// The whole of a small file (at most limit bytes, else kTooBig).
Result<std::string> read_text_file(const std::string& path, std::size_t limit = 1 << 20);
// Writes NAME.tmp, syncs, renames: the file is either the old or the new text.
Result<void> replace_text_file(const std::string& path, const std::string& text);

}  // namespace gradfs
