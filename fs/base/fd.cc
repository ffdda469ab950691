#include "fs/base/fd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace gradfs {

void UniqueFd::reset(int fd) noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<UniqueFd> UniqueFd::duplicate() const {
  UniqueFd copy(::fcntl(fd_, F_DUPFD_CLOEXEC, 0));
  if (!copy) return errno_error("dup");
  return copy;
}

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return errno_error(path);
  return fd;
}

Result<UniqueFd> open_file_at(const UniqueFd& directory, const std::string& name, int flags, unsigned mode) {
  UniqueFd fd(::openat(directory.get(), name.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return errno_error(name);
  return fd;
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, size_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<Mapping> Mapping::map(const UniqueFd& fd, std::size_t size, bool writable, bool populate) {
  Mapping out;
  if (size == 0) return out;
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* address = ::mmap(nullptr, size, protection, MAP_SHARED | (populate ? MAP_POPULATE : 0), fd.get(), 0);
  if (address == MAP_FAILED) return errno_error("mmap");
  out.data_ = static_cast<std::byte*>(address);
  out.size_ = size;
  return out;
}

bool is_connected_to_itself(int fd) noexcept {
  sockaddr_storage own{};
  sockaddr_storage peer{};
  socklen_t own_length = sizeof own;
  socklen_t peer_length = sizeof peer;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_length) == 0 &&
         ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_length) == 0 &&
         own.ss_family != AF_UNIX && own_length == peer_length && std::memcmp(&own, &peer, own_length) == 0;
}

Result<void> read_fully_at(int fd, std::span<std::byte> out, std::size_t offset) {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("pread");
    if (n == 0) return Error(Errc::kCorrupt, "file is shorter than expected");
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::size_t>(n);
  }
  return ok();
}

Result<void> write_fully_at(int fd, std::span<const std::byte> in, std::size_t offset) {
  while (!in.empty()) {
    const ssize_t n = ::pwrite(fd, in.data(), in.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("pwrite");
    in = in.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::size_t>(n);
  }
  return ok();
}

Result<std::string> read_text_file(const std::string& path, std::size_t limit) {
  GRADFS_TRY(UniqueFd fd, open_file(path, O_RDONLY));
  std::string text;
  char chunk[4096];
  for (;;) {
    const ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error(path);
    if (n == 0) return text;
    text.append(chunk, static_cast<std::size_t>(n));
    if (text.size() > limit) return Error(Errc::kTooBig, path);
  }
}

Result<void> replace_text_file(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp";
  {
    GRADFS_TRY(UniqueFd fd, open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644));
    GRADFS_TRYV(write_fully_at(fd.get(), std::as_bytes(std::span(text)), 0));
    if (::fsync(fd.get()) != 0) return errno_error(temporary);
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return errno_error(path);
  return ok();
}

}  // namespace gradfs
