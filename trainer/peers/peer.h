// Peer: what the architectures have in common that take the optimizer's step themselves, in a process of the
// trainer. Their parameters come from the directory's model.safetensors and go back there at the end.
#pragma once

#include <string>
#include <vector>

#include "coproc/descent/config.h"
#include "trainer/exchange.h"
#include "trainer/float_array.h"
#include "trainer/model_file.h"

namespace gradfs::trainer {

// What a peer begins with.
struct PeerModel {
  ModelLayout layout;
  std::vector<DenseLayer> layers;
  DescentConfig config;
  std::string header;     // of model.safetensors, with its length
  bool is_bound = false;  // the filesystem applies what lands in the directory
  FloatArray parameters;  // shared with forked processes
};
Result<PeerModel> open_peer_model(const ExchangeOptions& options);

// Writes a model's file beside `path`, to be renamed to it: header, then parameters. Removes it on failure.
Result<void> write_model_file(const std::string& path, const std::string& header,
                              std::span<const float> parameters);

// Threads for an optimizer's step where `updaters` processes take one at the same time: together as many as
// there are processors.
std::size_t update_threads(std::size_t updaters);

class Peer : public Architecture {
 public:
  Peer(const ExchangeOptions& options, PeerModel model);

  [[nodiscard]] const std::vector<DenseLayer>& layers() const override { return model_.layers; }
  [[nodiscard]] std::uint64_t parameters() const override { return model_.layout.parameters(); }
  ParameterSource& observer() override { return observer_; }
  void clean_up(std::size_t workers) override {}
  [[nodiscard]] std::optional<std::uint64_t> version() const override;
  [[nodiscard]] std::string optimizer() const override;
  Result<void> finish() override;

 protected:
  [[nodiscard]] std::uint64_t bytes() const noexcept { return model_.layout.parameters() * sizeof(float); }

  const ExchangeOptions options_;
  PeerModel model_;

 private:
  class Observer final : public ParameterSource {
   public:
    explicit Observer(const FloatArray& parameters) : parameters_(parameters) {}
    Result<std::span<const float>> current() override { return parameters_.span(); }

   private:
    const FloatArray& parameters_;
  };
  Observer observer_;
};

}  // namespace gradfs::trainer
