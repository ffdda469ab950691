// The exchange of allreduce: a gradient is added to those of all other ranks by MPI, and the optimizer's step
// is taken on this rank's copy of the model.
#pragma once

#include <memory>
#include <span>

#include "trainer/exchange.h"
#include "trainer/float_array.h"
#include "trainer/peers/peer.h"
#include "trainer/peers/updater.h"

namespace gradfs::trainer {

// One rank's copy of the model and how it answers the supervisor, which sees what rank 0 has.
class RankArchitecture final : public Peer {
 public:
  // copy: where rank 0 puts its parameters when they are asked for.
  RankArchitecture(const ExchangeOptions& options, PeerModel model, std::span<float> copy)
      : Peer(options, std::move(model)), copy_(copy) {}
  [[nodiscard]] std::string name() const override { return "allreduce"; }
  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override;

 private:
  std::span<float> copy_;
};

}  // namespace gradfs::trainer
