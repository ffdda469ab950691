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

// What else than the configuration an update depends on.
struct UpdateOf {
  std::uint64_t step = 1;     // of the tensor, this one included
  std::uint64_t version = 0;  // of the model before it: the schedule's time
  float scale = 1.0F;         // of the gradient
};

// The hyperparameters of an update of a tensor, its own as in `own`; trust_ratio is 1.
gradfs_hyper hyper_of(const DescentConfig& config, const DescentConfig::ForTensor& own,
                      const UpdateOf& update);

// What a rule makes of its hyperparameters before it looks at an element: computed in double, as PyTorch does
// in Python, and rounded to float once.
struct KernelScalars {
  float scale = 1.0F;   // of the gradient
  float decay = 0.0F;   // L2
  float shrink = 1.0F;  // decoupled decay: 1 - lr * weight_decay
  float rate = 0.0F;    // -lr; adam: -lr / bias correction 1; lamb: -lr * trust ratio
  float momentum = 0.0F;
  float undampened = 1.0F;           // 1 - dampening
  float beta1 = 0.0F, rest1 = 0.0F;  // rest: 1 - beta
  float beta2 = 0.0F, rest2 = 0.0F;
  float root = 1.0F;      // of bias correction 2
  float unbiased = 1.0F;  // lamb: 1 / bias correction 1
  float eps = 0.0F;
  float start = 0.0F;     // adagrad: the sum before the first step
  bool is_first = false;  // step 1: the momentum buffer becomes the gradient, adagrad's sum begins at start
  bool is_nesterov = false;
};
KernelScalars scalars_of(Optimizer optimizer, const gradfs_hyper& hyper) noexcept;

using Kernel = void (*)(const KernelSpan& span, const KernelScalars& scalars);

// Only reads. squares[0]: the sum of the squares of the span's parameters, squares[1]: of the update before
// trust ratio and rate; in double, in an order that depends on n alone.
using NormsKernel = void (*)(const KernelSpan& span, const KernelScalars& scalars, double squares[2]);

struct Kernels {
  const char* name;  // "avx512"
  Kernel sgd;
  Kernel momentum;  // and nesterov
  Kernel adam;
  Kernel adamw;
  Kernel adagrad;
  Kernel rmsprop;  // leaves new_state[1] alone, which may be null, where momentum is 0
  Kernel lion;
  Kernel lamb;
  NormsKernel lamb_norms;
  // All of count floats at any alignment are finite, and are when multiplied by scale, which is not negative.
  bool (*all_finite)(const std::byte* data, std::size_t count, float scale);
};

// The fastest that this processor can run.
const Kernels& kernels() noexcept;
// All that this processor can run, the fastest first; null ends them. For tests.
const Kernels* const* all_kernels() noexcept;

Kernel kernel_of(const Kernels& kernels, Optimizer optimizer) noexcept;
// Null for all rules but those that need the norms of a whole tensor before its first element can change.
NormsKernel norms_kernel_of(const Kernels& kernels, Optimizer optimizer) noexcept;

// Whether the rule writes state `state` with these hyperparameters.
bool writes_state(Optimizer optimizer, const KernelScalars& scalars, std::uint32_t state) noexcept;
// From the two sums of squares of a whole tensor.
double trust_ratio_of(double parameter_squares, double update_squares) noexcept;

}  // namespace gradfs
