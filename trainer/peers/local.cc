#include "trainer/peers/local.h"

#include "trainer/peers/peer.h"
#include "trainer/peers/updater.h"

namespace gradfs::trainer {
namespace {

class LocalExchange final : public Exchange {
 public:
  LocalExchange(std::span<float> parameters, FloatArray gradient, std::unique_ptr<Updater> updater,
                RunControl& control)
      : parameters_(parameters),
        gradient_(std::move(gradient)),
        updater_(std::move(updater)),
        control_(control) {}

  Result<std::span<const float>> current() override { return parameters_; }
  std::span<float> gradient() override { return gradient_.span(); }
  [[nodiscard]] std::uint64_t bytes_moved() const override { return 0; }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    if (!updater_->is_finite(gradient_.span())) return PushOutcome::kRefused;
    const float* const gradient = gradient_.data();
    updater_->apply(parameters_, std::span(&gradient, 1), 1.0F);
    control_.version.fetch_add(1);
    return PushOutcome::kCounted;
  }

 private:
  std::span<float> parameters_;
  FloatArray gradient_;
  std::unique_ptr<Updater> updater_;
  RunControl& control_;
};

class Local final : public Peer {
 public:
  using Peer::Peer;
  [[nodiscard]] std::string name() const override { return "local"; }

  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    GRADFS_TRY(FloatArray gradient, FloatArray::make_private(parameters()));
    GRADFS_TRY(std::unique_ptr<Updater> updater,
               Updater::make(model_.layout, model_.config, update_threads(1)));
    return std::unique_ptr<Exchange>(std::make_unique<LocalExchange>(
        model_.parameters.span(), std::move(gradient), std::move(updater), *options_.control));
  }
};

}  // namespace

Result<std::unique_ptr<Architecture>> open_local(const ExchangeOptions& options) {
  if (options.workers != 1)
    return Error(Errc::kInvalid, "the architecture local has one worker: --workers 1");
  GRADFS_TRY(PeerModel model, open_peer_model(options));
  return std::unique_ptr<Architecture>(std::make_unique<Local>(options, std::move(model)));
}

}  // namespace gradfs::trainer
