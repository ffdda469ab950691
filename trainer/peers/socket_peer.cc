#include "trainer/peers/socket_peer.h"

#include "fs/base/clock.h"

namespace gradfs::trainer {

Result<void> SocketPeer::prepare() {
  token_ = SystemRandom().next_u64();
  GRADFS_TRY(listener_, TcpListener::make());
  return ok();
}

}  // namespace gradfs::trainer
