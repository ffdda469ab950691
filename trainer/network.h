// A fully connected network: ReLU between the layers, softmax and cross-entropy at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "trainer/dense.h"

namespace gradfs::trainer {

// Where a layer's tensors lie in the flat parameter buffer (and in a gradient of the same layout), in floats.
struct DenseLayer {
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  std::size_t weight_offset = 0;  // [outputs, inputs], row-major
  std::size_t bias_offset = 0;    // [outputs]
};

// Owns its activations and nothing of the parameters. One thread at a time; copies share nothing.
class Network {
 public:
  // layers: at least one; each takes what the one before gives. batch_max: rows of the largest batch.
  // label_smoothing: the share of the target that is spread over all classes (0 to 1) when a gradient is
  // computed.
  Network(std::vector<DenseLayer> layers, std::size_t batch_max, float label_smoothing = 0,
          const DenseKernels& kernels = dense_kernels());

  [[nodiscard]] std::size_t inputs() const noexcept { return layers_.front().inputs; }
  [[nodiscard]] std::size_t classes() const noexcept { return layers_.back().outputs; }
  [[nodiscard]] std::size_t batch_max() const noexcept { return batch_max_; }

  // The buffer for a batch, [batch_max, inputs]: fill its first rows, then call one of the two below.
  [[nodiscard]] std::span<float> batch() noexcept { return activations_.front(); }

  // The gradient of scale * (sum over the rows of the cross-entropy to the smoothed target), written to, or
  // added to, `gradient`, which has the layout of `parameters`. Returns the sum of the cross-entropy to the
  // labels themselves, unscaled. labels: one for each row, all below classes(). `parameters` may change
  // meanwhile (a live map): each value is then some value it had.
  double gradient(const float* parameters, std::span<const std::uint8_t> labels, float scale, bool accumulate,
                  float* gradient);

  // How many of the rows the network classifies as labelled. A row with a NaN among its outputs is wrong.
  std::size_t count_correct(const float* parameters, std::span<const std::uint8_t> labels);

  // Multiplications and additions of one call of gradient().
  [[nodiscard]] double gradient_flops(std::size_t rows) const noexcept;

 private:
  void forward(const float* parameters, std::size_t rows);
  double loss_and_delta(std::span<const std::uint8_t> labels, float scale);

  std::vector<DenseLayer> layers_;
  std::size_t batch_max_;
  float label_smoothing_;
  const DenseKernels* kernels_;
  std::vector<std::vector<float>> activations_;  // [0] is the batch, [i] what layer i - 1 gives
  std::vector<float> delta_;  // the loss by the outputs of a layer, and of the one before it
  std::vector<float> delta_before_;
};

}  // namespace gradfs::trainer
