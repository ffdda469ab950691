// The built-in rules, through the interface that a plugin has.
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

const Kernels& choose() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return kernels_avx512::kTable;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kernels_avx2::kTable;
#endif
  return kernels_baseline::kTable;
}

gradfs_rule make_rule(const char* name, int (*apply)(const gradfs_span*, const gradfs_hyper*),
                      const char* first_state = nullptr, const char* second_state = nullptr) {
  gradfs_rule rule{};
  rule.size = sizeof rule;
  rule.abi_version = GRADFS_ABI_VERSION;
  rule.flags = GRADFS_RULE_SCALES;
  rule.name = name;
  rule.state_names[0] = first_state;
  rule.state_names[1] = second_state;
  rule.apply = apply;
  return rule;
}

}  // namespace

const Kernels& kernels() noexcept {
  static const Kernels& chosen = choose();
  return chosen;
}

const gradfs_rule& builtin_rule(Optimizer optimizer) noexcept {
  static const gradfs_rule sgd = make_rule("sgd", kernels().sgd);
  static const gradfs_rule momentum = make_rule("momentum", kernels().momentum, "momentum_buffer");
  static const gradfs_rule nesterov = make_rule("nesterov", kernels().momentum, "momentum_buffer");
  static const gradfs_rule adam = make_rule("adam", kernels().adam, "exp_avg", "exp_avg_sq");
  static const gradfs_rule adamw = make_rule("adamw", kernels().adamw, "exp_avg", "exp_avg_sq");
  switch (optimizer) {
    case Optimizer::kSgd: return sgd;
    case Optimizer::kMomentum: return momentum;
    case Optimizer::kNesterov: return nesterov;
    case Optimizer::kAdam: return adam;
    case Optimizer::kAdamw: return adamw;
  }
  GRADFS_CHECK(false);
}

}  // namespace gradfs
