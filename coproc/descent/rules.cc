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
gradfs_rule make_rule(const char* name, const char* first_state = nullptr,
                      const char* second_state = nullptr) {
  gradfs_rule rule{};
  rule.size = sizeof rule;
  rule.abi_version = GRADFS_ABI_VERSION;
  rule.flags = GRADFS_RULE_SCALES;
  rule.name = name;
  rule.state_names[0] = first_state;
  rule.state_names[1] = second_state;
  rule.apply = apply_in_place<kOptimizer>;
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

gradfs_hyper hyper_of(const DescentConfig& config, const DescentConfig::ForTensor& own, std::uint64_t step,
                      float scale) {
  gradfs_hyper out{};
  out.size = sizeof out;
  out.step = step;
  out.lr = own.lr;
  out.weight_decay = own.weight_decay;
  out.momentum = config.momentum;
  out.dampening = config.dampening;
  out.beta1 = config.beta1;
  out.beta2 = config.beta2;
  out.eps = config.eps;
  out.nesterov = config.optimizer == Optimizer::kNesterov ? 1 : 0;
  out.grad_scale = scale;
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
  if (optimizer == Optimizer::kAdam || optimizer == Optimizer::kAdamw) {
    const auto steps = static_cast<double>(hyper.step);
    out.rate = static_cast<float>(-(hyper.lr / (1.0 - std::pow(hyper.beta1, steps))));
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
  }
  GRADFS_CHECK(false);
}

const gradfs_rule& builtin_rule(Optimizer optimizer) noexcept {
  static const gradfs_rule rules[] = {
      make_rule<Optimizer::kSgd>("sgd"),
      make_rule<Optimizer::kMomentum>("momentum", "momentum_buffer"),
      make_rule<Optimizer::kNesterov>("nesterov", "momentum_buffer"),
      make_rule<Optimizer::kAdam>("adam", "exp_avg", "exp_avg_sq"),
      make_rule<Optimizer::kAdamw>("adamw", "exp_avg", "exp_avg_sq"),
  };
  const auto index = static_cast<std::size_t>(optimizer) - 1;
  GRADFS_CHECK(index < std::size(rules));
  return rules[index];
}

}  // namespace gradfs
