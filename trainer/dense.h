// One fully connected layer on a batch: the arithmetic of the network, compiled once for each instruction
// set.
//
// All matrices are row-major F32 without padding: activations and deltas [batch, width], weights [outputs,
// inputs] as torch's nn.Linear has them. Buffers need no alignment and must not overlap, except as said.
// Every function runs on the caller's thread alone, may be called from any thread, and cannot fail.
#pragma once

#include <cstddef>
#include <vector>

namespace gradfs::trainer {

struct DenseKernels {
  const char* name;  // "avx512", "avx2", "baseline"

  // out = in * weight^T + bias, and negative values become zero if relu is set (a NaN stays one).
  void (*forward)(const float* in, const float* weight, const float* bias, std::size_t batch,
                  std::size_t inputs, std::size_t outputs, bool relu, float* out);

  // weight_gradient = delta^T * in, bias_gradient = the sum of delta's rows; added to what is there if
  // accumulate.
  void (*parameter_gradient)(const float* delta, const float* in, std::size_t batch, std::size_t inputs,
                             std::size_t outputs, bool accumulate, float* weight_gradient,
                             float* bias_gradient);

  // in_delta = delta * weight where in (what ReLU left) is positive or a NaN, else zero.
  void (*input_delta)(const float* delta, const float* weight, const float* in, std::size_t batch,
                      std::size_t inputs, std::size_t outputs, float* in_delta);
};

// The fastest that this processor can run. GRADFS_TRAIN_KERNELS=NAME in the environment names another one.
const DenseKernels& dense_kernels();
// All that this processor can run, the fastest first.
std::vector<const DenseKernels*> supported_dense_kernels();

}  // namespace gradfs::trainer
