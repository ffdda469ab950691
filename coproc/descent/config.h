// descent.toml: optimizer, hyperparameters, groups, schedule and policy of a model directory.
//
//   [optimizer]  name lr weight_decay profile, and of the optimizers that have them: betas eps momentum dampening
//                alpha lr_decay initial_accumulator_value
//   [[group]]    match weight_decay lr_scale frozen betas eps momentum
//   [schedule]   kind warmup total every gamma min_lr_scale
//   [policy]     mode ack
//
// Anything that is not understood is refused: an edit that has no effect would be worse than an error.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coproc/descent/optimizers.h"
#include "fs/base/result.h"

namespace gradfs {

// What close() and fsync() of a push wait for.
enum class Ack : std::uint8_t { kApplied, kCommitted };

// A [[group]]: overrides for the tensors whose name matches the glob. For each key the last group that
// matches and has the key wins.
struct DescentGroup {
  std::string match;  // *, ?, [..]; * also matches '.' and '/'
  std::optional<double> weight_decay;
  std::optional<double> lr_scale;
  std::optional<bool> frozen;
  std::optional<std::array<double, 2>> betas = std::nullopt;
  std::optional<double> eps = std::nullopt;
  std::optional<double> momentum = std::nullopt;
};

// [schedule]: what the learning rate of an update is multiplied by. A pure function of these values and of v,
// the version that the model has before the update (0 before the first), so an update that is made again
// after a crash has the same rate. Computed in double:
//
//   v < warmup    (v + 1) / warmup, for every kind
//   otherwise, with t = v - warmup and x = min(1, t / (total - warmup)):
//     constant    1
//     step        max(min_lr_scale, gamma ^ floor(t / every))
//     linear      1 - (1 - min_lr_scale) * x
//     cosine      min_lr_scale + (1 - min_lr_scale) * (1 + cos(pi * x)) / 2
struct Schedule {
  enum class Kind : std::uint8_t { kConstant, kStep, kCosine, kLinear };
  Kind kind = Kind::kConstant;
  std::uint64_t warmup = 0;   // updates
  std::uint64_t total = 0;    // linear and cosine: updates, the warm-up among them; above warmup
  std::uint64_t every = 1;    // step: updates from one change to the next
  double gamma = 0.1;         // step
  double min_lr_scale = 0.0;  // all but constant

  [[nodiscard]] double factor(std::uint64_t version) const noexcept;
};
std::string_view to_text(Schedule::Kind kind) noexcept;  // "constant"

struct DescentConfig {
  Optimizer optimizer = Optimizer::kSgd;
  double lr = 0.01;
  double weight_decay = 0.0;  // L2; decoupled where has_decoupled_decay() says so
  double momentum = 0.0;
  double dampening = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double alpha = 0.99;                     // rmsprop
  double lr_decay = 0.0;                   // adagrad
  double initial_accumulator_value = 0.0;  // adagrad
  // profile "fast": subnormal numbers count as zero (fs/base/subnormals.h); all others have the bits of
  // "torch1-fma", which keeps them as torch does.
  bool flushes_subnormals = true;
  Schedule schedule;
  Ack ack = Ack::kApplied;
  std::vector<DescentGroup> groups;

  // What holds for one tensor, groups included.
  struct ForTensor {
    double lr = 0.0;  // before the schedule
    double weight_decay = 0.0;
    double momentum = 0.0;
    double beta1 = 0.0;
    double beta2 = 0.0;
    double eps = 0.0;
    bool frozen = false;  // its gradients are ignored, its step does not move
  };
  [[nodiscard]] ForTensor for_tensor(const std::string& name) const;
};

// PyTorch's defaults for the optimizer (adam's lr 1e-3; adamw's weight_decay 0.01), but momentum 0.9 for
// momentum and nesterov, and for lion and lamb what their papers use; a constant rate, no clipping.
DescentConfig default_config(Optimizer optimizer);

// kInvalid: "descent.toml line 3: optimizer.lr is -1; it must be a finite number of at least 0".
Result<DescentConfig> parse_config(std::string_view toml);

// A commented descent.toml with this configuration; parse_config reads it back as it was.
std::string render_config(const DescentConfig& config);

}  // namespace gradfs
