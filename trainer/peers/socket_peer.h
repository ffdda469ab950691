// SocketPeer: a peer whose workers reach a process of the trainer through a port of this host.
#pragma once

#include <cstdint>

#include "trainer/peers/peer.h"
#include "trainer/peers/tcp.h"

namespace gradfs::trainer {

class SocketPeer : public Peer {
 public:
  using Peer::Peer;

  // The port is open, and the token drawn, before any process is forked: all have both.
  Result<void> prepare() override;

 protected:
  [[nodiscard]] TcpListener& listener() noexcept { return listener_; }
  // Random: who knows it belongs to this run.
  [[nodiscard]] std::uint64_t token() const noexcept { return token_; }

 private:
  TcpListener listener_;
  std::uint64_t token_ = 0;
};

}  // namespace gradfs::trainer
