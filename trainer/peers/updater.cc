#include "trainer/peers/updater.h"

#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "coproc/descent/kernels.h"
#include "coproc/descent/layout.h"
#include "fs/base/check.h"
#include "fs/base/subnormals.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kStripe = 4096;  // parameters: with states and gradients they stay in the cache
constexpr std::size_t kNormed = kStripeParameters;  // what the filesystem takes a norm of
constexpr std::size_t kStripesAtOnce = 16;          // that a thread takes
constexpr std::size_t kFiniteAtOnce = 1 << 16;      // values that a thread looks at

}  // namespace

Result<DescentConfig> choose_config(const ExchangeOptions& options) {
  DescentConfig config = default_config(Optimizer::kAdam);
  const std::string path = options.model_directory + "/descent.toml";
  if (Result<std::string> text = read_text_file(path); text) {
    GRADFS_TRY(config, parse_config(text.value()));
  } else if (text.error().code != Errc::kNotFound) {
    return text.error();
  }
  if (options.optimizer) {
    const std::optional<Optimizer> optimizer = optimizer_from_text(*options.optimizer);
    if (!optimizer) {
      return Error(Errc::kInvalid,
                   "no optimizer '" + *options.optimizer + "'; there are " + optimizer_names());
    }
    if (*optimizer != config.optimizer) config = default_config(*optimizer);
  }
  if (options.learning_rate) {
    if (!std::isfinite(*options.learning_rate) || *options.learning_rate < 0) {
      return Error(Errc::kInvalid, "the learning rate must be a finite number of at least 0");
    }
    config.lr = *options.learning_rate;
  }
  return config;
}

Updater::Updater(const ModelLayout& layout, DescentConfig config, std::size_t threads)
    : config_(std::move(config)), sums_(threads, std::vector<float>(kStripe)), pool_(threads) {
  for (const ModelTensor& tensor : layout.tensors) {
    const std::size_t index = tensors_.size();
    tensors_.push_back(config_.for_tensor(tensor.name));
    if (tensors_.back().frozen) continue;
    for (std::size_t at = 0; at < tensor.count; at += kStripe) {
      stripes_.push_back({index, tensor.offset + at, std::min<std::size_t>(kStripe, tensor.count - at)});
    }
  }
}

Result<std::unique_ptr<Updater>> Updater::make(const ModelLayout& layout, const DescentConfig& config,
                                               std::size_t threads) {
  GRADFS_CHECK(threads > 0);
  std::unique_ptr<Updater> updater(new Updater(layout, config, threads));
  for (const char* name : builtin_rule(config.optimizer).state_names) {
    if (name == nullptr) break;
    GRADFS_TRY(FloatArray state, FloatArray::make_private(layout.parameters()));
    updater->states_.push_back(std::move(state));
  }
  return updater;
}

bool Updater::is_finite(std::span<const float> gradient) {
  std::atomic<bool> finite{true};
  const auto look = [&](std::size_t block, std::size_t) {
    const std::size_t first = block * kFiniteAtOnce;
    const std::size_t count = std::min(kFiniteAtOnce, gradient.size() - first);
    const auto* data = reinterpret_cast<const std::byte*>(gradient.data() + first);
    if (!kernels().all_finite(data, count, 1.0F)) finite.store(false, std::memory_order_relaxed);
  };
  pool_.parallel_for((gradient.size() + kFiniteAtOnce - 1) / kFiniteAtOnce, look);
  return finite.load(std::memory_order_relaxed);
}

const float* Updater::gradient_of(const Stripe& stripe, std::span<const float* const> gradients,
                                  float* sum) const {
  if (gradients.size() == 1) return gradients.front() + stripe.first;
  std::memcpy(sum, gradients.front() + stripe.first, stripe.count * sizeof(float));
  for (const float* gradient : gradients.subspan(1)) {
    const float* from = gradient + stripe.first;
    for (std::size_t i = 0; i < stripe.count; ++i) sum[i] += from[i];
  }
  return sum;
}

KernelSpan Updater::span_of(const Stripe& stripe, std::span<float> parameters, const float* gradient) {
  KernelSpan span;
  span.n = stripe.count;
  span.grad = gradient;
  span.param = span.new_param = parameters.data() + stripe.first;
  for (std::size_t state = 0; state < states_.size(); ++state) {
    span.state[state] = span.new_state[state] = states_[state].data() + stripe.first;
  }
  return span;
}

template <class Take>
void Updater::each_stripe(Take&& take) {
  pool_.parallel_for((stripes_.size() + kStripesAtOnce - 1) / kStripesAtOnce,
                     [&](std::size_t block, std::size_t thread) {
                       std::optional<FlushSubnormals> flush;
                       if (config_.flushes_subnormals) flush.emplace();
                       const std::size_t end = std::min(stripes_.size(), (block + 1) * kStripesAtOnce);
                       for (std::size_t i = block * kStripesAtOnce; i < end; ++i) take(i, thread);
                     });
}

std::vector<KernelScalars> Updater::scalars(const std::vector<gradfs_hyper>& hypers) const {
  std::vector<KernelScalars> out;
  out.reserve(hypers.size());
  for (const gradfs_hyper& hyper : hypers) out.push_back(scalars_of(config_.optimizer, hyper));
  return out;
}

// The same sums, in the same order, as the filesystem's.
void Updater::find_trust_ratios(std::span<float> parameters, std::span<const float* const> gradients,
                                std::vector<gradfs_hyper>& hypers) {
  const NormsKernel norms = norms_kernel_of(kernels(), config_.optimizer);
  const std::vector<KernelScalars> first = scalars(hypers);
  std::vector<std::array<double, 2 * kStripe / kNormed>> squares(stripes_.size());
  each_stripe([&](std::size_t i, std::size_t thread) {
    const Stripe& stripe = stripes_[i];
    const float* gradient = gradient_of(stripe, gradients, sums_[thread].data());
    for (std::size_t at = 0; at < stripe.count; at += kNormed) {
      const Stripe part{stripe.tensor, stripe.first + at, std::min(kNormed, stripe.count - at)};
      norms(span_of(part, parameters, gradient + at), first[part.tensor], &squares[i][2 * at / kNormed]);
    }
  });
  std::vector<std::array<double, 2>> total(hypers.size());
  for (std::size_t i = 0; i < stripes_.size(); ++i) {
    for (std::size_t k = 0; k < squares[i].size(); ++k) total[stripes_[i].tensor][k % 2] += squares[i][k];
  }
  for (std::size_t tensor = 0; tensor < hypers.size(); ++tensor) {
    hypers[tensor].trust_ratio = trust_ratio_of(total[tensor][0], total[tensor][1]);
  }
}

void Updater::apply(std::span<float> parameters, std::span<const float* const> gradients, float scale) {
  ++steps_;
  std::vector<gradfs_hyper> hypers;
  hypers.reserve(tensors_.size());
  for (const DescentConfig::ForTensor& own : tensors_) {
    hypers.push_back(hyper_of(config_, own, {steps_, steps_ - 1, scale}));
  }
  if (norms_kernel_of(kernels(), config_.optimizer) != nullptr) {
    find_trust_ratios(parameters, gradients, hypers);
  }
  const std::vector<KernelScalars> of_tensors = scalars(hypers);
  const Kernel kernel = kernel_of(kernels(), config_.optimizer);
  each_stripe([&](std::size_t i, std::size_t thread) {
    const float* gradient = gradient_of(stripes_[i], gradients, sums_[thread].data());
    kernel(span_of(stripes_[i], parameters, gradient), of_tensors[stripes_[i].tensor]);
  });
}

}  // namespace gradfs::trainer
