// descent.toml: optimizer, hyperparameters, groups and policy of a model directory.
//
//   [optimizer]  name lr betas eps weight_decay momentum dampening profile
//   [[group]]    match weight_decay lr_scale frozen
//   [policy]     mode ack
//
// Anything that is not understood is refused: an edit that has no effect would be worse than an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/result.h"

namespace gradfs {

// The values are stored in control files: never renumber.
enum class Optimizer : std::uint32_t { kSgd = 1, kMomentum = 2, kNesterov = 3, kAdam = 4, kAdamw = 5 };

std::string_view to_text(Optimizer optimizer) noexcept;  // "sgd"
std::optional<Optimizer> optimizer_from_text(std::string_view name) noexcept;
std::optional<Optimizer> optimizer_from_value(std::uint32_t value) noexcept;

// What close() and fsync() of a push wait for.
enum class Ack : std::uint8_t { kApplied, kCommitted };

// A [[group]]: overrides for the tensors whose name matches the glob. For each key the last group that
// matches and has the key wins.
struct DescentGroup {
  std::string match;  // *, ?, [..]; * also matches '.' and '/'
  std::optional<double> weight_decay;
  std::optional<double> lr_scale;
  std::optional<bool> frozen;
};

struct DescentConfig {
  Optimizer optimizer = Optimizer::kSgd;
  double lr = 0.01;
  double weight_decay = 0.0;  // L2 for all but adamw, where it is decoupled
  double momentum = 0.0;
  double dampening = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  // profile "fast": subnormal numbers count as zero (fs/base/subnormals.h); all others have the bits of
  // "torch1-fma", which keeps them as torch does.
  bool flushes_subnormals = true;
  Ack ack = Ack::kApplied;
  std::vector<DescentGroup> groups;

  // What holds for one tensor, groups included.
  struct ForTensor {
    double lr = 0.0;
    double weight_decay = 0.0;
    bool frozen = false;  // its gradients are ignored, its step does not move
  };
  [[nodiscard]] ForTensor for_tensor(const std::string& name) const;
};

// PyTorch's defaults for the optimizer (momentum 0.9; adam's lr 1e-3; adamw's weight_decay 0.01), without
// clipping.
DescentConfig default_config(Optimizer optimizer);

// kInvalid: "descent.toml line 3: optimizer.lr is -1; it must be a finite number of at least 0".
Result<DescentConfig> parse_config(std::string_view toml);

// A commented descent.toml with this configuration; parse_config reads it back as it was.
std::string render_config(const DescentConfig& config);

}  // namespace gradfs
