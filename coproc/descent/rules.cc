// The built-in rules, through the interface that a plugin has, and the choice of their kernels.
#include <cmath>
#include <iterator>

#include "coproc/descent/kernels.h"
#include "coproc/descent/layout.h"
#include "fs/base/check.h"

namespace gradfs {
namespace kernels_baseline {
extern const Kernels kTable;
}
#if defined(__x86_64__)
namespace kernels_avx2 {
extern const Kernels kTable;
}
namespace kernels_avx512 {
extern const Kernels kTable;
}
#endif
namespace {

struct Found {
  const Kernels* tables[4] = {};
};

Found find_kernels() noexcept {
  Found found;
  std::size_t count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    found.tables[count++] = &kernels_avx512::kTable;
  }
  if (fma) found.tables[count++] = &kernels_avx2::kTable;
#endif
  found.tables[count] = &kernels_baseline::kTable;
  return found;
}

template <Optimizer kOptimizer>
int apply_in_place(const gradfs_span* span, const gradfs_hyper* hyper) {
  KernelSpan own;
  own.n = span->n;
  own.grad = span->grad;
  own.param = own.new_param = span->param;
  for (int i = 0; i < 2; ++i) own.state[i] = own.new_state[i] = span->state[i];
  kernel_of(kernels(), kOptimizer)(own, scalars_of(kOptimizer, *hyper));
  return 0;
}

template <Optimizer kOptimizer>
int sum_squares(const gradfs_span* span, const gradfs_hyper* hyper, double squares[2]) {
  KernelSpan own;
  own.n = span->n;
  own.grad = span->grad;
  own.param = span->param;
  for (int i = 0; i < 2; ++i) own.state[i] = span->state[i];
  norms_kernel_of(kernels(), kOptimizer)(own, scalars_of(kOptimizer, *hyper), squares);
  return 0;
}

template <Optimizer kOptimizer>
gradfs_rule make_rule(const char* first_state = nullptr, const char* second_state = nullptr) {
  gradfs_rule rule{};
  rule.size = sizeof rule;
  rule.abi_version = GRADFS_ABI_VERSION;
  rule.flags = GRADFS_RULE_SCALES;
  rule.name = to_text(kOptimizer).data();  // of a literal, so it ends with a zero
  rule.state_names[0] = first_state;
  rule.state_names[1] = second_state;
  rule.apply = apply_in_place<kOptimizer>;
  if (kOptimizer == Optimizer::kLamb) rule.norms = sum_squares<kOptimizer>;
  return rule;
}

}  // namespace

const Kernels* const* all_kernels() noexcept {
  static const Found found = find_kernels();
  return found.tables;
}

const Kernels& kernels() noexcept {
  static const Kernels& fastest = *all_kernels()[0];
  return fastest;
}

gradfs_hyper hyper_of(const DescentConfig& config, const DescentConfig::ForTensor& own,
                      const UpdateOf& update) {
  gradfs_hyper out{};
  out.size = sizeof out;
  out.step = update.step;
  out.lr = own.lr * config.schedule.factor(update.version);
  out.weight_decay = own.weight_decay;
  out.momentum = own.momentum;
  out.dampening = config.dampening;
  out.beta1 = own.beta1;
  out.beta2 = own.beta2;
  out.eps = own.eps;
  out.nesterov = config.optimizer == Optimizer::kNesterov ? 1 : 0;
  out.grad_scale = update.scale;
  out.alpha = config.alpha;
  out.lr_decay = config.lr_decay;
  out.initial_accumulator_value = config.initial_accumulator_value;
  out.trust_ratio = 1.0;
  return out;
}

KernelScalars scalars_of(Optimizer optimizer, const gradfs_hyper& hyper) noexcept {
  KernelScalars out;
  out.scale = hyper.grad_scale;
  out.decay = static_cast<float>(hyper.weight_decay);
  out.shrink = static_cast<float>(1.0 - hyper.lr * hyper.weight_decay);
  out.rate = static_cast<float>(-hyper.lr);
  out.momentum = static_cast<float>(hyper.momentum);
  out.undampened = static_cast<float>(1.0 - hyper.dampening);
  out.beta1 = static_cast<float>(hyper.beta1);
  out.rest1 = static_cast<float>(1.0 - hyper.beta1);
  out.beta2 = static_cast<float>(hyper.beta2);
  out.rest2 = static_cast<float>(1.0 - hyper.beta2);
  out.eps = static_cast<float>(hyper.eps);
  out.is_first = hyper.step == 1;
  out.is_nesterov = hyper.nesterov != 0;
  const auto steps = static_cast<double>(hyper.step);
  if (optimizer == Optimizer::kAdam || optimizer == Optimizer::kAdamw) {
    out.rate = static_cast<float>(-(hyper.lr / (1.0 - std::pow(hyper.beta1, steps))));
    out.root = static_cast<float>(std::sqrt(1.0 - std::pow(hyper.beta2, steps)));
  } else if (optimizer == Optimizer::kAdagrad) {
    out.rate = static_cast<float>(-(hyper.lr / (1.0 + (steps - 1.0) * hyper.lr_decay)));
    out.start = static_cast<float>(hyper.initial_accumulator_value);
  } else if (optimizer == Optimizer::kRmsprop) {
    out.beta2 = static_cast<float>(hyper.alpha);
    out.rest2 = static_cast<float>(1.0 - hyper.alpha);
  } else if (optimizer == Optimizer::kLamb) {
    out.rate = static_cast<float>(-(hyper.lr * hyper.trust_ratio));
    out.unbiased = static_cast<float>(1.0 / (1.0 - std::pow(hyper.beta1, steps)));
    out.root = static_cast<float>(std::sqrt(1.0 - std::pow(hyper.beta2, steps)));
  }
  return out;
}

Kernel kernel_of(const Kernels& kernels, Optimizer optimizer) noexcept {
  switch (optimizer) {
    case Optimizer::kSgd:
      return kernels.sgd;
    case Optimizer::kMomentum:
    case Optimizer::kNesterov:
      return kernels.momentum;
    case Optimizer::kAdam:
      return kernels.adam;
    case Optimizer::kAdamw:
      return kernels.adamw;
    case Optimizer::kAdagrad:
      return kernels.adagrad;
    case Optimizer::kRmsprop:
      return kernels.rmsprop;
    case Optimizer::kLion:
      return kernels.lion;
    case Optimizer::kLamb:
      return kernels.lamb;
  }
  GRADFS_CHECK(false);
}

NormsKernel norms_kernel_of(const Kernels& kernels, Optimizer optimizer) noexcept {
  return optimizer == Optimizer::kLamb ? kernels.lamb_norms : nullptr;
}

bool writes_state(Optimizer optimizer, const KernelScalars& scalars, std::uint32_t state) noexcept {
  return optimizer != Optimizer::kRmsprop || state != 1 || scalars.momentum != 0.0F;
}

double trust_ratio_of(double parameter_squares, double update_squares) noexcept {
  const double parameters = std::sqrt(parameter_squares);
  const double update = std::sqrt(update_squares);
  return parameters > 0 && update > 0 ? parameters / update : 1.0;
}

const gradfs_rule& builtin_rule(Optimizer optimizer) noexcept {
  static const gradfs_rule rules[] = {
      make_rule<Optimizer::kSgd>(),
      make_rule<Optimizer::kMomentum>("momentum_buffer"),
      make_rule<Optimizer::kNesterov>("momentum_buffer"),
      make_rule<Optimizer::kAdam>("exp_avg", "exp_avg_sq"),
      make_rule<Optimizer::kAdamw>("exp_avg", "exp_avg_sq"),
      make_rule<Optimizer::kAdagrad>("sum"),
      make_rule<Optimizer::kRmsprop>("square_avg", "momentum_buffer"),
      make_rule<Optimizer::kLion>("exp_avg"),
      make_rule<Optimizer::kLamb>("exp_avg", "exp_avg_sq"),
  };
  const auto index = static_cast<std::size_t>(optimizer) - 1;
  GRADFS_CHECK(index < std::size(rules));
  return rules[index];
}

}  // namespace gradfs
