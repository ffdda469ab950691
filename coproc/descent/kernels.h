// The kernels of the built-in rules: one fused pass over a span, in PyTorch 1.13's arithmetic with fused multiply-add.
//
// The same source is compiled for several instruction sets; the bits do not depend on which one runs, because every
// fused and every rounded operation is written out (and the compiler may not contract others).
#pragma once

#include <cstddef>

#include "coproc/gradfs_coproc.h"

namespace gradfs {

struct Kernels {
  int (*sgd)(const gradfs_span*, const gradfs_hyper*);
  int (*momentum)(const gradfs_span*, const gradfs_hyper*);  // and nesterov: gradfs_hyper.nesterov
  int (*adam)(const gradfs_span*, const gradfs_hyper*);
  int (*adamw)(const gradfs_span*, const gradfs_hyper*);
  // All of count floats at any alignment are finite, and are when multiplied by scale.
  bool (*all_finite)(const std::byte* data, std::size_t count, float scale);
};

// The fastest that this processor can run.
const Kernels& kernels() noexcept;

}  // namespace gradfs
