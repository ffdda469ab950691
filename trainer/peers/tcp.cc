#include "trainer/peers/tcp.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

namespace gradfs::trainer {
namespace {

constexpr int kBuffer = 4 << 20;  // of each socket, in bytes
constexpr int kBacklog = 1024;

void set_option(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof value);  // what it refuses only makes it slower
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

Error failed(const char* what, int error_number) {
  if (error_number == EAGAIN) {
    return Error(Errc::kTimeout, std::string(what) + ": no answer in time");
  }
  if (error_number == EPIPE || error_number == ECONNRESET) {
    return Error(Errc::kUnavailable, "the other side of the connection is gone");
  }
  return errno_error(what, error_number);
}

}  // namespace

TcpSocket::TcpSocket(UniqueFd fd) : fd_(std::move(fd)) {
  set_option(fd_.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  limit_reads(kPeerWait_s);
  const timeval wait{.tv_sec = kPeerWait_s, .tv_usec = 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
}

void TcpSocket::limit_reads(std::int64_t seconds) const {
  const timeval wait{.tv_sec = seconds, .tv_usec = 0};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
}

void TcpSocket::shut_down() const noexcept { ::shutdown(fd_.get(), SHUT_RDWR); }

Result<TcpSocket> TcpSocket::connect(std::uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  set_option(fd.get(), SOL_SOCKET, SO_SNDBUF, kBuffer);
  set_option(fd.get(), SOL_SOCKET, SO_RCVBUF, kBuffer);
  const sockaddr_in address = loopback(port);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return errno_error("connecting to port " + std::to_string(port));
  }
  if (is_connected_to_itself(fd.get())) {
    return Error(Errc::kUnavailable, "connecting to port " + std::to_string(port) + ": nothing listens");
  }
  return TcpSocket(std::move(fd));
}

Result<void> TcpSocket::write_all(std::span<const std::byte> bytes) { return write_all(bytes, 0); }

Result<void> TcpSocket::write_all(std::span<const std::byte> first, std::span<const std::byte> second) {
  GRADFS_TRYV(write_all(first, MSG_MORE));
  return write_all(second, 0);
}

Result<void> TcpSocket::write_all(std::span<const std::byte> bytes, int flags) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | flags);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return failed("send", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return ok();
}

Result<void> TcpSocket::read_all(std::span<std::byte> out) {
  while (!out.empty()) {
    GRADFS_TRY(const std::size_t size, read_some(out));
    out = out.subspan(size);
  }
  return ok();
}

Result<std::size_t> TcpSocket::read_some(std::span<std::byte> out) {
  for (;;) {
    const ssize_t size = ::recv(fd_.get(), out.data(), out.size(), 0);
    if (size > 0) return static_cast<std::size_t>(size);
    if (size == 0) return failed("recv", ECONNRESET);
    if (errno != EINTR) return failed("recv", errno);
  }
}

Result<TcpListener> TcpListener::make() {
  TcpListener listener;
  listener.fd_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.fd_) return errno_error("socket");
  set_option(listener.fd_.get(), SOL_SOCKET, SO_SNDBUF, kBuffer);
  set_option(listener.fd_.get(), SOL_SOCKET, SO_RCVBUF, kBuffer);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (::bind(listener.fd_.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener.fd_.get(), kBacklog) != 0 ||
      ::getsockname(listener.fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return errno_error("listening on 127.0.0.1");
  }
  listener.port_ = ntohs(address.sin_port);
  return listener;
}

Result<TcpSocket> TcpListener::accept(int timeout_ms) {
  pollfd waiting{fd_.get(), POLLIN, 0};
  if (::poll(&waiting, 1, timeout_ms) < 0 && errno != EINTR) return errno_error("poll");
  UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (fd) return TcpSocket(std::move(fd));
  if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) {
    return Error(Errc::kTimeout, "no connection");
  }
  return errno_error("accept");
}

}  // namespace gradfs::trainer
