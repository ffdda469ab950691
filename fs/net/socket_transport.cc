#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>

#include "fs/net/executor_impl.h"
#include "fs/net/transport.h"

namespace gradfs {
namespace asio = boost::asio;
namespace {

constexpr auto kUseTuple = asio::as_tuple(asio::use_awaitable);
using Descriptor = asio::posix::stream_descriptor;

constexpr std::size_t kReceiveBufferBytes = 64 << 10;
// A peer that takes nothing for so long is lost.
constexpr std::int64_t kWriteStall_ns = 10 * kSecond_ns;
// A peer that always has another frame ready lets the others have their turn after this many.
constexpr unsigned kFramesAtOnce = 64;

// A socket address of either family.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Result<SocketAddress> parse_address(const std::string& text) {
  SocketAddress out;
  if (text.starts_with('/')) {
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    if (text.size() >= sizeof local.sun_path) {
      return Error(Errc::kNameTooLong,
                   text + ": a Unix socket's path has at most 107 bytes; use a shorter directory");
    }
    std::memcpy(local.sun_path, text.data(), text.size());
    std::memcpy(&out.storage, &local, sizeof local);
    out.length = sizeof local;
    return out;
  }
  const auto colon = text.rfind(':');
  boost::system::error_code ec;
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const auto address = asio::ip::make_address(host, ec);
  int port = -1;
  for (std::size_t i = colon + 1; !ec && i < text.size(); ++i) {
    if (text[i] < '0' || text[i] > '9' || port > 65535) return Error(Errc::kInvalid, "address: " + text);
    port = (port < 0 ? 0 : port * 10) + (text[i] - '0');
  }
  if (ec || port < 0 || port > 65535) {
    return Error(Errc::kInvalid, "address '" + text + "': give ADDR:PORT, such as 127.0.0.1:7400");
  }
  if (address.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<std::uint16_t>(port));
    v4.sin_addr.s_addr = htonl(address.to_v4().to_uint());
    std::memcpy(&out.storage, &v4, sizeof v4);
    out.length = sizeof v4;
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<std::uint16_t>(port));
    const auto bytes = address.to_v6().to_bytes();
    std::memcpy(&v6.sin6_addr, bytes.data(), bytes.size());
    std::memcpy(&out.storage, &v6, sizeof v6);
    out.length = sizeof v6;
  }
  return out;
}

// Waits until the descriptor is ready, at most timeout_ns. false: not in time, or closed; a wait that runs
// out also ends the descriptor's other waits.
Task<bool> wait_ready(Descriptor& descriptor, Descriptor::wait_type event, std::int64_t timeout_ns) {
  auto waiting = std::make_shared<Descriptor*>(&descriptor);
  asio::steady_timer timer(descriptor.get_executor(), std::chrono::nanoseconds(timeout_ns));
  timer.async_wait([waiting](const boost::system::error_code& ec) {
    if (!ec && *waiting != nullptr) (*waiting)->cancel();
  });
  auto [ec] = co_await descriptor.async_wait(event, kUseTuple);
  *waiting = nullptr;
  co_return !ec;
}

class SocketConnection final : public Connection {
 public:
  SocketConnection(asio::io_context& context, int fd, bool is_unix)
      : descriptor_(context, fd), is_unix_(is_unix), buffer_(kReceiveBufferBytes) {
    if (is_unix_) {
      ucred credentials{};
      socklen_t length = sizeof credentials;
      if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0)
        uid_ = static_cast<int>(credentials.uid);
    } else {
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
  }

  Task<Result<Frame>> read() override {
    if (++frames_at_once_ > kFramesAtOnce) {
      frames_at_once_ = 0;
      co_await asio::post(descriptor_.get_executor(), asio::use_awaitable);
    }
    while (end_ - begin_ < kFrameHeaderBytes) {
      GRADFS_CO_TRYV(co_await receive({}));
    }
    std::array<std::byte, kFrameHeaderBytes> bytes;
    std::memcpy(bytes.data(), buffer_.data() + begin_, kFrameHeaderBytes);
    begin_ += kFrameHeaderBytes;
    Frame frame;
    GRADFS_CO_TRY(frame.header, decode_frame_header(bytes));
    frame.message.resize(frame.header.message_length);
    std::size_t have = std::min<std::size_t>(frame.message.size(), end_ - begin_);
    std::memcpy(frame.message.data(), buffer_.data() + begin_, have);
    begin_ += have;
    while (have < frame.message.size()) {
      GRADFS_CO_TRY(const std::size_t more, co_await receive(std::span(frame.message).subspan(have)));
      have += more;
    }
    if (received_.size() < frame.header.descriptors)
      co_return Error(Errc::kCorrupt, "frame: descriptors are missing");
    const auto own_end = received_.begin() + frame.header.descriptors;
    frame.descriptors.assign(std::move_iterator(received_.begin()), std::move_iterator(own_end));
    received_.erase(received_.begin(), own_end);
    co_return frame;
  }

  Task<Result<void>> write(Frame frame) override {
    if (!is_unix_ && !frame.descriptors.empty()) co_return Error(Errc::kNotSupported, "descriptors over TCP");
    if (frame.descriptors.size() > kMaxDescriptors) co_return Error(Errc::kInvalid, "too many descriptors");
    if (frame.message.size() > kMaxMessageBytes) co_return Error(Errc::kTooBig, "message");
    frame.header.descriptors = static_cast<std::uint8_t>(frame.descriptors.size());
    frame.header.message_length = static_cast<std::uint32_t>(frame.message.size());
    std::array<std::byte, kFrameHeaderBytes> header;
    encode_frame_header(frame.header, header);
    const std::size_t total = header.size() + frame.message.size();
    for (std::size_t sent = 0; sent < total;) {
      const ssize_t n = send_some(header, frame, sent);
      if (n > 0) {
        sent += static_cast<std::size_t>(n);
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        const bool ready = co_await wait_ready(descriptor_, Descriptor::wait_write, kWriteStall_ns);
        if (!ready) co_return Error(Errc::kUnavailable, "connection closed, or the peer takes nothing");
      } else if (errno != EINTR) {
        co_return Error(Errc::kUnavailable, std::string("send: ") + std::strerror(errno));
      }
    }
    co_return ok();
  }

  void close() override {
    if (!descriptor_.is_open()) return;
    ::shutdown(descriptor_.native_handle(), SHUT_RDWR);
    boost::system::error_code ignored;
    descriptor_.close(ignored);
  }

  int peer_uid() const override { return uid_; }

 private:
  // Waits for bytes: first into `direct`, what is beyond it into the buffer. Returns how many went into
  // `direct`.
  Task<Result<std::size_t>> receive(std::span<char> direct) {
    if (begin_ > 0) {
      std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    for (;;) {
      if (!descriptor_.is_open()) co_return Error(Errc::kUnavailable, "connection closed");
      const ssize_t n = receive_some(direct);
      if (received_.size() > 2 * kMaxDescriptors)
        co_return Error(Errc::kCorrupt, "frame: too many descriptors");
      if (n > 0) {
        const std::size_t taken = std::min(direct.size(), static_cast<std::size_t>(n));
        end_ += static_cast<std::size_t>(n) - taken;
        co_return taken;
      }
      if (n == 0) co_return Error(Errc::kUnavailable, "connection closed by the peer");
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        co_return Error(Errc::kUnavailable, std::string("receive: ") + std::strerror(errno));
      }
      frames_at_once_ = 0;
      auto [ec] = co_await descriptor_.async_wait(Descriptor::wait_read, kUseTuple);
      if (ec) co_return Error(Errc::kUnavailable, "connection closed");
    }
  }

  ssize_t receive_some(std::span<char> direct) {
    std::array<iovec, 2> vectors{iovec{direct.data(), direct.size()},
                                 iovec{buffer_.data() + end_, buffer_.size() - end_}};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4 * kMaxDescriptors)];
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = vectors.size();
    if (is_unix_) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
    }
    const ssize_t n = ::recvmsg(descriptor_.native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n >= 0 && is_unix_) take_descriptors(message);
    return n;
  }

  void take_descriptors(msghdr& message) {
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
        received_.emplace_back(fd);
      }
    }
  }

  // Sends what it can of the frame from byte `sent` on; the descriptors go with the first byte.
  ssize_t send_some(std::span<std::byte> header, Frame& frame, std::size_t sent) {
    if (!descriptor_.is_open()) {
      errno = EPIPE;
      return -1;
    }
    const std::size_t of_header = std::min(sent, header.size());
    const std::size_t of_message = sent - of_header;
    std::array<iovec, 2> vectors{iovec{header.data() + of_header, header.size() - of_header},
                                 iovec{frame.message.data() + of_message, frame.message.size() - of_message}};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxDescriptors)] = {};
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = vectors.size();
    if (sent == 0 && !frame.descriptors.empty()) {
      const std::size_t bytes = sizeof(int) * frame.descriptors.size();
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(bytes);
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(bytes);
      for (std::size_t i = 0; i < frame.descriptors.size(); ++i) {
        const int fd = frame.descriptors[i].get();
        std::memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof fd);
      }
    }
    return ::sendmsg(descriptor_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  Descriptor descriptor_;
  const bool is_unix_;
  int uid_ = -1;
  unsigned frames_at_once_ = 0;  // read since this connection last waited
  std::vector<char> buffer_;     // [begin_, end_) is received and not yet taken
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::vector<UniqueFd> received_;  // descriptors received and not yet taken
};

class SocketListener final : public Listener {
 public:
  SocketListener(asio::io_context& context, int fd, std::string address, bool is_unix)
      : context_(context), descriptor_(context, fd), address_(std::move(address)), is_unix_(is_unix) {
    if (is_unix_) ::stat(address_.c_str(), &own_);
  }
  ~SocketListener() override { close(); }

  Task<Result<std::unique_ptr<Connection>>> accept() override {
    for (;;) {
      if (!descriptor_.is_open()) co_return Error(Errc::kUnavailable, "listener closed");
      const int fd = ::accept4(descriptor_.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        std::unique_ptr<Connection> connection = std::make_unique<SocketConnection>(context_, fd, is_unix_);
        co_return connection;
      }
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) co_return errno_error("accept");
      auto [ec] = co_await descriptor_.async_wait(Descriptor::wait_read, kUseTuple);
      if (ec) co_return Error(Errc::kUnavailable, "listener closed");
    }
  }

  void close() override {
    if (!descriptor_.is_open()) return;
    boost::system::error_code ignored;
    descriptor_.close(ignored);
    // A server that was started since may have put its own socket there.
    struct stat now{};
    if (!is_unix_ || ::stat(address_.c_str(), &now) != 0) return;
    if (now.st_ino == own_.st_ino && now.st_dev == own_.st_dev) ::unlink(address_.c_str());
  }
  std::string address() const override { return address_; }

 private:
  asio::io_context& context_;
  Descriptor descriptor_;
  const std::string address_;
  const bool is_unix_;
  struct stat own_{};  // of the Unix socket's name
};

class SocketTransport final : public Transport {
 public:
  explicit SocketTransport(Executor& executor) : context_(executor.impl().context) {}

  Task<Result<std::unique_ptr<Connection>>> connect(std::string address, std::int64_t timeout_ns) override {
    GRADFS_CO_TRY(SocketAddress target, parse_address(address));
    UniqueFd fd(::socket(target.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) co_return errno_error("socket");
    if (::connect(fd.get(), target.get(), target.length) != 0) {
      if (errno != EINPROGRESS) {
        co_return Error(Errc::kUnavailable, address + ": " + std::strerror(errno));
      }
      GRADFS_CO_TRYV(co_await wait_connected(fd, address, timeout_ns));
    }
    if (is_connected_to_itself(fd.get())) co_return Error(Errc::kUnavailable, address + ": nothing listens");
    std::unique_ptr<Connection> out =
        std::make_unique<SocketConnection>(context_, fd.release(), target.family() == AF_UNIX);
    co_return out;
  }

  Result<std::unique_ptr<Listener>> listen(const std::string& address) override {
    GRADFS_TRY(SocketAddress local, parse_address(address));
    const bool is_unix = local.family() == AF_UNIX;
    UniqueFd fd(::socket(local.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return errno_error("socket");
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (is_unix) ::unlink(address.c_str());
    if (::bind(fd.get(), local.get(), local.length) != 0) return errno_error("bind " + address);
    if (::listen(fd.get(), 1024) != 0) return errno_error("listen " + address);
    std::string name = address;
    if (!is_unix) {
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&local.storage), &local.length);
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(&local.storage);
      name = address.substr(0, address.rfind(':') + 1) + std::to_string(ntohs(v4->sin_port));
    }
    std::unique_ptr<Listener> out = std::make_unique<SocketListener>(context_, fd.release(), name, is_unix);
    return out;
  }

 private:
  Task<Result<void>> wait_connected(UniqueFd& fd, const std::string& address, std::int64_t timeout_ns) {
    Descriptor descriptor(context_, fd.release());
    const bool ready = co_await wait_ready(descriptor, Descriptor::wait_write, timeout_ns);
    fd.reset(descriptor.release());
    if (!ready) co_return Error(Errc::kUnavailable, address + ": no answer");
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) co_return Error(Errc::kUnavailable, address + ": " + std::strerror(error));
    co_return ok();
  }

  asio::io_context& context_;
};

}  // namespace

std::unique_ptr<Transport> make_socket_transport(Executor& executor) {
  return std::make_unique<SocketTransport>(executor);
}

}  // namespace gradfs
