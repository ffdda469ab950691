// The kernels of the built-in rules: one fused pass over a span, in PyTorch 1.13's arithmetic with fused
// multiply-add.
//
// The same source is compiled for several instruction sets; the bits do not depend on which one runs, because
// every fused and every rounded operation is written out (and the compiler may not contract others).
#pragma once

#include <cstddef>
#include <cstdint>

#include "coproc/descent/config.h"
#include "coproc/gradfs_coproc.h"

namespace gradfs {

// A part of a tensor whose new values go elsewhere: while they are computed, nobody sees them. Each output is
// either its input itself or does not overlap with anything.
struct KernelSpan {
  std::size_t n = 0;
  const float* grad = nullptr;
  const float* param = nullptr;
  const float* state[2] = {};
  float* new_param = nullptr;
  float* new_state[2] = {};
};

// The hyperparameters of a tensor's update number `step`, its own as in `own`. scale: of the gradient.
gradfs_hyper hyper_of(const DescentConfig& config, const DescentConfig::ForTensor& own, std::uint64_t step,
                      float scale);

// What a rule makes of its hyperparameters before it looks at an element: computed in double, as PyTorch does
// in Python, and rounded to float once.
struct KernelScalars {
  float scale = 1.0F;   // of the gradient
  float decay = 0.0F;   // L2
  float shrink = 1.0F;  // adamw: 1 - lr * weight_decay
  float rate = 0.0F;    // -lr; adam: -lr / bias correction 1
  float momentum = 0.0F;
  float undampened = 1.0F;           // 1 - dampening
  float beta1 = 0.0F, rest1 = 0.0F;  // rest: 1 - beta
  float beta2 = 0.0F, rest2 = 0.0F;
  float root = 1.0F;  // of bias correction 2
  float eps = 0.0F;
  bool is_first = false;  // step 1: the momentum buffer becomes the gradient
  bool is_nesterov = false;
};
KernelScalars scalars_of(Optimizer optimizer, const gradfs_hyper& hyper) noexcept;

using Kernel = void (*)(const KernelSpan& span, const KernelScalars& scalars);

struct Kernels {
  const char* name;  // "avx512"
  Kernel sgd;
  Kernel momentum;  // and nesterov
  Kernel adam;
  Kernel adamw;
  // All of count floats at any alignment are finite, and are when multiplied by scale, which is not negative.
  bool (*all_finite)(const std::byte* data, std::size_t count, float scale);
};

// The fastest that this processor can run.
const Kernels& kernels() noexcept;
// All that this processor can run, the fastest first; null ends them. For tests.
const Kernels* const* all_kernels() noexcept;

Kernel kernel_of(const Kernels& kernels, Optimizer optimizer) noexcept;

}  // namespace gradfs
