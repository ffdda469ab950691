// The update rules' inner loops and the finiteness check, once for each instruction set, with the same bits in all.
//
// The arithmetic is torch 1.13's: its AVX2 and AVX-512 loops use fused multiply-add, so every fma here is written out
// and the compiler may contract nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

#include "coproc/gradfs_coproc.h"

namespace gradfs {

// Scalars are rounded to float once, from doubles computed as PyTorch does in Python.
struct KernelScalars {
  float grad_scale = 1.0F;
  float weight_decay = 0.0F;       // L2: added to the gradient; 0 adds nothing
  float param_scale = 1.0F;        // adamw: 1 - lr * weight_decay
  float minus_lr = 0.0F;           // -lr; adam: -lr / bias correction 1
  float momentum = 0.0F;
  float one_minus_dampening = 1.0F;
  float beta1 = 0.0F;
  float one_minus_beta1 = 0.0F;
  float beta2 = 0.0F;
  float one_minus_beta2 = 0.0F;
  float bias_correction2_root = 1.0F;
  float eps = 0.0F;
};

struct Kernels {
  const char* name;                                                             // "avx512"
  void (*sgd)(const gradfs_span& span, const KernelScalars& scalars);
  void (*momentum)(const gradfs_span& span, const KernelScalars& scalars);      // state 0: the buffer
  void (*momentum_first)(const gradfs_span& span, const KernelScalars& scalars);  // the buffer becomes the gradient
  void (*nesterov)(const gradfs_span& span, const KernelScalars& scalars);
  void (*nesterov_first)(const gradfs_span& span, const KernelScalars& scalars);
  void (*adam)(const gradfs_span& span, const KernelScalars& scalars);          // states: exp_avg, exp_avg_sq
  void (*adamw)(const gradfs_span& span, const KernelScalars& scalars);
  // data: n floats at any alignment. True if each of them times scale is finite.
  bool (*all_finite)(const std::byte* data, std::size_t n, float scale);
};

extern const Kernels kKernelsBaseline;
#if defined(__x86_64__)
extern const Kernels kKernelsAvx2;     // needs AVX2 and FMA
extern const Kernels kKernelsAvx512;   // needs AVX-512 F, VL, BW, DQ and FMA
#endif

// The best that this processor runs; chosen once.
const Kernels& kernels() noexcept;
// All that this processor runs, ended by null: for tests.
const Kernels* const* all_kernels() noexcept;

}  // namespace gradfs
