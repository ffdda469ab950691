#include "trainer/network.h"

#include <algorithm>
#include <cmath>

#include "fs/base/check.h"

namespace gradfs::trainer {

Network::Network(std::vector<DenseLayer> layers, std::size_t batch_max, float label_smoothing,
                 const DenseKernels& kernels)
    : layers_(std::move(layers)),
      batch_max_(batch_max),
      label_smoothing_(label_smoothing),
      kernels_(&kernels) {
  GRADFS_CHECK(!layers_.empty() && batch_max_ > 0);
  std::size_t widest = 0;
  activations_.emplace_back(batch_max_ * layers_.front().inputs);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    GRADFS_CHECK(i == 0 || layers_[i].inputs == layers_[i - 1].outputs);
    activations_.emplace_back(batch_max_ * layers_[i].outputs);
    widest = std::max(widest, layers_[i].outputs);
  }
  delta_.resize(batch_max_ * widest);
  delta_before_.resize(batch_max_ * widest);
}

void Network::forward(const float* parameters, std::size_t rows) {
  GRADFS_CHECK(rows <= batch_max_);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const DenseLayer& layer = layers_[i];
    kernels_->forward(activations_[i].data(), parameters + layer.weight_offset,
                      parameters + layer.bias_offset, rows, layer.inputs, layer.outputs,
                      i + 1 < layers_.size(), activations_[i + 1].data());
  }
}

double Network::loss_and_delta(std::span<const std::uint8_t> labels, float scale) {
  const std::size_t width = classes();
  const float everywhere = scale * label_smoothing_ / static_cast<float>(width);
  const float at_label = scale * (1 - label_smoothing_);
  double loss = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    GRADFS_CHECK(labels[row] < width);
    const float* output = activations_.back().data() + row * width;
    float* delta = delta_.data() + row * width;
    const float highest = *std::max_element(output, output + width);
    float sum = 0;
    for (std::size_t i = 0; i < width; ++i) {
      delta[i] = std::exp(output[i] - highest);
      sum += delta[i];
    }
    loss += std::log(static_cast<double>(sum)) - static_cast<double>(output[labels[row]] - highest);
    const float factor = scale / sum;
    for (std::size_t i = 0; i < width; ++i) delta[i] = delta[i] * factor - everywhere;
    delta[labels[row]] -= at_label;
  }
  return loss;
}

double Network::gradient(const float* parameters, std::span<const std::uint8_t> labels, float scale,
                         bool accumulate, float* gradient) {
  const std::size_t rows = labels.size();
  forward(parameters, rows);
  const double loss = loss_and_delta(labels, scale);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    const DenseLayer& layer = layers_[i];
    kernels_->parameter_gradient(delta_.data(), activations_[i].data(), rows, layer.inputs, layer.outputs,
                                 accumulate, gradient + layer.weight_offset, gradient + layer.bias_offset);
    if (i == 0) break;
    kernels_->input_delta(delta_.data(), parameters + layer.weight_offset, activations_[i].data(), rows,
                          layer.inputs, layer.outputs, delta_before_.data());
    std::swap(delta_, delta_before_);
  }
  return loss;
}

std::size_t Network::count_correct(const float* parameters, std::span<const std::uint8_t> labels) {
  forward(parameters, labels.size());
  const std::size_t width = classes();
  std::size_t correct = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    const float* output = activations_.back().data() + row * width;
    bool right = labels[row] < width;
    for (std::size_t i = 0; right && i < width; ++i) {
      right = i == labels[row] ? !std::isnan(output[i]) : output[labels[row]] > output[i];
    }
    correct += right ? 1 : 0;
  }
  return correct;
}

double Network::gradient_flops(std::size_t rows) const noexcept {
  double flops = 0;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const double products = i == 0 ? 2 : 3;
    flops += products * 2.0 * static_cast<double>(rows * layers_[i].inputs * layers_[i].outputs);
  }
  return flops;
}

}  // namespace gradfs::trainer
