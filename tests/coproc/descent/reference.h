// The rules, one element after the other: what the engine must compute, to the bit.
#pragma once

#include <cmath>

#include "tests/coproc/descent/model_files.h"

namespace gradfs {

// Written from PyTorch's description, and for lion and lamb from their papers.
struct Reference {
  struct Tensor {
    std::string name;
    Floats param, first, second;
    std::uint64_t step = 0;
  };
  std::vector<Tensor> tensors;
  std::uint64_t version = 0;

  explicit Reference(const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) {
      const Floats zeros(piece.values.size(), 0.0F);
      tensors.push_back({piece.tensor.name, piece.values, zeros, zeros});
    }
  }

  void apply(const DescentConfig& config, const std::vector<Piece>& gradient, double loss_scale = 1.0) {
    for (const Piece& piece : gradient) {
      for (Tensor& tensor : tensors) {
        if (tensor.name == piece.tensor.name) apply(config, tensor, piece.values, loss_scale);
      }
    }
    ++version;
  }

  void apply(const DescentConfig& config, Tensor& tensor, const Floats& gradient, double loss_scale) const {
    DescentConfig::ForTensor own = config.for_tensor(tensor.name);
    if (own.frozen) return;
    own.lr *= config.schedule.factor(version);
    ++tensor.step;
    const auto scale = static_cast<float>(1.0 / loss_scale);
    Floats scaled = gradient;
    for (float& g : scaled) g *= scale;
    if (config.optimizer == Optimizer::kLamb) return lamb(own, tensor, scaled);
    for (std::size_t i = 0; i < scaled.size(); ++i) {
      switch (config.optimizer) {
        case Optimizer::kAdam:
        case Optimizer::kAdamw:
          adam_element(config, own, tensor, i, scaled[i]);
          break;
        case Optimizer::kAdagrad:
          adagrad_element(config, own, tensor, i, scaled[i]);
          break;
        case Optimizer::kRmsprop:
          rmsprop_element(config, own, tensor, i, scaled[i]);
          break;
        case Optimizer::kLion:
          lion_element(own, tensor, i, scaled[i]);
          break;
        default:
          sgd_element(config, own, tensor, i, scaled[i]);
      }
    }
  }

  static void adagrad_element(const DescentConfig& config, const DescentConfig::ForTensor& own,
                              Tensor& tensor, std::size_t i, float g) {
    float& p = tensor.param[i];
    float& sum = tensor.first[i];
    if (tensor.step == 1) sum = static_cast<float>(config.initial_accumulator_value);
    if (own.weight_decay != 0) g = std::fma(p, static_cast<float>(own.weight_decay), g);
    sum = std::fma(g, g, sum);
    const double lr = own.lr / (1.0 + static_cast<double>(tensor.step - 1) * config.lr_decay);
    const float root = std::sqrt(sum) + static_cast<float>(own.eps);
    const float change = static_cast<float>(-lr) * g;
    const float quotient = change / root;
    p += quotient;
  }

  static void rmsprop_element(const DescentConfig& config, const DescentConfig::ForTensor& own,
                              Tensor& tensor, std::size_t i, float g) {
    float& p = tensor.param[i];
    float& square = tensor.first[i];
    if (own.weight_decay != 0) g = std::fma(p, static_cast<float>(own.weight_decay), g);
    const float kept = square * static_cast<float>(config.alpha);
    const float part = static_cast<float>(1.0 - config.alpha) * g;
    square = std::fma(part, g, kept);
    const float root = std::sqrt(square) + static_cast<float>(own.eps);
    if (own.momentum == 0) {
      const float change = static_cast<float>(-own.lr) * g;
      const float quotient = change / root;
      p += quotient;
      return;
    }
    const float old = tensor.second[i] * static_cast<float>(own.momentum);
    const float quotient = g / root;
    tensor.second[i] = old + quotient;
    p = std::fma(tensor.second[i], static_cast<float>(-own.lr), p);
  }

  static void lion_element(const DescentConfig::ForTensor& own, Tensor& tensor, std::size_t i, float g) {
    float& mean = tensor.first[i];
    const float of_sign = mean * static_cast<float>(own.beta1);
    const float direction = std::fma(g, static_cast<float>(1.0 - own.beta1), of_sign);
    const auto lr = static_cast<float>(own.lr);
    float p = tensor.param[i] * static_cast<float>(1.0 - own.lr * own.weight_decay);
    if (direction > 0) p -= lr;
    if (direction < 0) p += lr;
    tensor.param[i] = p;
    const float kept = mean * static_cast<float>(own.beta2);
    mean = std::fma(g, static_cast<float>(1.0 - own.beta2), kept);
  }

  // Sums of squares: sixteen in each stripe, element i in sum i % 16, then by halves; then stripe by stripe.
  static double squares(const Floats& values) {
    double total = 0;
    for (std::size_t first = 0; first < values.size(); first += kStripeParameters) {
      double sums[16] = {};
      for (std::size_t i = first; i < std::min<std::size_t>(first + kStripeParameters, values.size()); ++i) {
        sums[(i - first) % 16] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      }
      for (std::size_t width = 8; width > 0; width /= 2) {
        for (std::size_t i = 0; i < width; ++i) sums[i] += sums[i + width];
      }
      total += sums[0];
    }
    return total;
  }

  static void lamb(const DescentConfig::ForTensor& own, Tensor& tensor, const Floats& gradient) {
    const auto steps = static_cast<double>(tensor.step);
    const auto unbiased = static_cast<float>(1.0 / (1.0 - std::pow(own.beta1, steps)));
    const auto root = static_cast<float>(std::sqrt(1.0 - std::pow(own.beta2, steps)));
    Floats updates;
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const float g = gradient[i];
      const float old_mean = tensor.first[i] * static_cast<float>(own.beta1);
      const float old_square = tensor.second[i] * static_cast<float>(own.beta2);
      const float part = static_cast<float>(1.0 - own.beta2) * g;
      tensor.first[i] = std::fma(g, static_cast<float>(1.0 - own.beta1), old_mean);
      tensor.second[i] = std::fma(part, g, old_square);
      const float quotient = std::sqrt(tensor.second[i]) / root;
      const float mean = tensor.first[i] * unbiased;
      float update = mean / (quotient + static_cast<float>(own.eps));
      if (own.weight_decay != 0) {
        update = std::fma(tensor.param[i], static_cast<float>(own.weight_decay), update);
      }
      updates.push_back(update);
    }
    const double norm = std::sqrt(squares(tensor.param));
    const double update_norm = std::sqrt(squares(updates));
    const double ratio = norm > 0 && update_norm > 0 ? norm / update_norm : 1.0;
    for (std::size_t i = 0; i < updates.size(); ++i) {
      tensor.param[i] = std::fma(updates[i], static_cast<float>(-(own.lr * ratio)), tensor.param[i]);
    }
  }

  static void sgd_element(const DescentConfig& config, const DescentConfig::ForTensor& own, Tensor& tensor,
                          std::size_t i, float g) {
    float& p = tensor.param[i];
    const auto mu = static_cast<float>(own.momentum);
    if (own.weight_decay != 0) g = std::fma(p, static_cast<float>(own.weight_decay), g);
    if (config.optimizer != Optimizer::kSgd) {
      float& buffer = tensor.first[i];
      const float kept = buffer * mu;
      buffer = tensor.step == 1 ? g : std::fma(g, static_cast<float>(1.0 - config.dampening), kept);
      g = config.optimizer == Optimizer::kNesterov ? std::fma(buffer, mu, g) : buffer;
    }
    p = std::fma(g, static_cast<float>(-own.lr), p);
  }

  static void adam_element(const DescentConfig& config, const DescentConfig::ForTensor& own, Tensor& tensor,
                           std::size_t i, float g) {
    float& p = tensor.param[i];
    float& mean = tensor.first[i];
    float& square = tensor.second[i];
    if (config.optimizer == Optimizer::kAdamw) {
      p *= static_cast<float>(1.0 - own.lr * own.weight_decay);
    } else if (own.weight_decay != 0) {
      g = std::fma(p, static_cast<float>(own.weight_decay), g);
    }
    const auto steps = static_cast<double>(tensor.step);
    const float old_mean = mean * static_cast<float>(own.beta1);
    mean = std::fma(g, static_cast<float>(1.0 - own.beta1), old_mean);
    const float old_square = square * static_cast<float>(own.beta2);
    const float part = static_cast<float>(1.0 - own.beta2) * g;
    square = std::fma(part, g, old_square);
    const float root = std::sqrt(square) / static_cast<float>(std::sqrt(1.0 - std::pow(own.beta2, steps)));
    const float denominator = root + static_cast<float>(own.eps);
    const float change = static_cast<float>(-(own.lr / (1.0 - std::pow(own.beta1, steps)))) * mean;
    const float quotient = change / denominator;
    p += quotient;
  }
};

}  // namespace gradfs
