// TCP on the loopback interface, in a thread that waits: whole buffers, and a deadline for each wait.
#pragma once

#include <cstdint>
#include <span>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::trainer {

// The longest a peer may take to answer or to accept more bytes: in a synchronous round, what the slowest
// worker needs for a gradient.
inline constexpr std::int64_t kPeerWait_s = 600;

// A connection. One thread sends and one receives. kUnavailable: the other side has closed it, or is gone.
class TcpSocket {
 public:
  TcpSocket() = default;
  explicit TcpSocket(UniqueFd fd);  // connected
  static Result<TcpSocket> connect(std::uint16_t port);

  [[nodiscard]] Result<void> write_all(std::span<const std::byte> bytes);
  // Both, as if they were one: the first may wait in the kernel for the second.
  [[nodiscard]] Result<void> write_all(std::span<const std::byte> first, std::span<const std::byte> second);
  [[nodiscard]] Result<void> read_all(std::span<std::byte> out);
  // At least one byte.
  [[nodiscard]] Result<std::size_t> read_some(std::span<std::byte> out);
  // The longest that each read may wait from now on; kPeerWait_s at first.
  void limit_reads(std::int64_t seconds) const;
  // Ends all reads and writes, of any thread.
  void shut_down() const noexcept;

 private:
  [[nodiscard]] Result<void> write_all(std::span<const std::byte> bytes, int flags);
  UniqueFd fd_;
};

// Listens on a port of 127.0.0.1 that the kernel chooses.
class TcpListener {
 public:
  static Result<TcpListener> make();
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  // The next connection; kTimeout if there is none for so long.
  Result<TcpSocket> accept(int timeout_ms);

 private:
  UniqueFd fd_;
  std::uint16_t port_ = 0;
};

}  // namespace gradfs::trainer
