// The built-in rules, through the same struct as anyone's, and the choice of kernels.
#include <cmath>

#include "coproc/descent/kernels.h"
#include "coproc/descent/layout.h"
#include "fs/base/check.h"

namespace gradfs {
namespace {

const Kernels* const* find_kernels() noexcept {
  static const Kernels* found[4] = {};
  std::size_t count = 0;
#if defined(__x86_64__)
  const bool fma = __builtin_cpu_supports("fma") != 0;
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
    found[count++] = &kKernelsAvx512;
  }
  if (fma && __builtin_cpu_supports("avx2")) found[count++] = &kKernelsAvx2;
#endif
  found[count++] = &kKernelsBaseline;
  return found;
}

KernelScalars descent_scalars(const gradfs_hyper& hyper) {
  KernelScalars out;
  out.grad_scale = hyper.grad_scale;
  out.weight_decay = static_cast<float>(hyper.weight_decay);
  out.minus_lr = static_cast<float>(-hyper.lr);
  out.momentum = static_cast<float>(hyper.momentum);
  out.one_minus_dampening = static_cast<float>(1 - hyper.dampening);
  return out;
}

KernelScalars adam_scalars(const gradfs_hyper& hyper) {
  KernelScalars out;
  const auto step = static_cast<double>(hyper.step);
  out.grad_scale = hyper.grad_scale;
  out.weight_decay = static_cast<float>(hyper.weight_decay);
  out.param_scale = static_cast<float>(1 - hyper.lr * hyper.weight_decay);
  out.minus_lr = static_cast<float>(-(hyper.lr / (1 - std::pow(hyper.beta1, step))));
  out.beta1 = static_cast<float>(hyper.beta1);
  out.one_minus_beta1 = static_cast<float>(1 - hyper.beta1);
  out.beta2 = static_cast<float>(hyper.beta2);
  out.one_minus_beta2 = static_cast<float>(1 - hyper.beta2);
  out.bias_correction2_root = static_cast<float>(std::sqrt(1 - std::pow(hyper.beta2, step)));
  out.eps = static_cast<float>(hyper.eps);
  return out;
}

int apply_sgd(const gradfs_span* span, const gradfs_hyper* hyper) {
  kernels().sgd(*span, descent_scalars(*hyper));
  return 0;
}

// Without momentum torch keeps no buffer: the same as sgd, dampening or not.
int apply_momentum(const gradfs_span* span, const gradfs_hyper* hyper) {
  if (hyper->momentum == 0.0) return apply_sgd(span, hyper);
  (hyper->step == 1 ? kernels().momentum_first : kernels().momentum)(*span, descent_scalars(*hyper));
  return 0;
}

int apply_nesterov(const gradfs_span* span, const gradfs_hyper* hyper) {
  if (hyper->momentum == 0.0) return apply_sgd(span, hyper);
  (hyper->step == 1 ? kernels().nesterov_first : kernels().nesterov)(*span, descent_scalars(*hyper));
  return 0;
}

int apply_adam(const gradfs_span* span, const gradfs_hyper* hyper) {
  kernels().adam(*span, adam_scalars(*hyper));
  return 0;
}

int apply_adamw(const gradfs_span* span, const gradfs_hyper* hyper) {
  kernels().adamw(*span, adam_scalars(*hyper));
  return 0;
}

constexpr gradfs_rule make_rule(const char* name, int (*apply)(const gradfs_span*, const gradfs_hyper*),
                                const char* state0 = nullptr, const char* state1 = nullptr) {
  return {sizeof(gradfs_rule), GRADFS_ABI_VERSION, GRADFS_RULE_SCALES, name, {state0, state1}, apply};
}

constexpr gradfs_rule kRules[] = {
    make_rule("sgd", apply_sgd),
    make_rule("momentum", apply_momentum, "momentum_buffer"),
    make_rule("nesterov", apply_nesterov, "momentum_buffer"),
    make_rule("adam", apply_adam, "exp_avg", "exp_avg_sq"),
    make_rule("adamw", apply_adamw, "exp_avg", "exp_avg_sq"),
};

}  // namespace

const Kernels* const* all_kernels() noexcept {
  static const Kernels* const* const found = find_kernels();
  return found;
}

const Kernels& kernels() noexcept {
  static const Kernels& best = *all_kernels()[0];
  return best;
}

const gradfs_rule& builtin_rule(Optimizer optimizer) noexcept {
  const auto index = static_cast<std::size_t>(optimizer) - 1;
  GRADFS_CHECK(index < std::size(kRules));
  return kRules[index];
}

}  // namespace gradfs
