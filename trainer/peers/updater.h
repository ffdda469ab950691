// Updater: the optimizer's step on a model in this process's memory, for the architectures that do not leave
// it to the filesystem: the same kernels on the same number of threads, without what makes the filesystem's
// step durable.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "coproc/descent/config.h"
#include "coproc/descent/kernels.h"
#include "fs/base/result.h"
#include "fs/base/thread_pool.h"
#include "trainer/exchange.h"
#include "trainer/float_array.h"
#include "trainer/model_file.h"

namespace gradfs::trainer {

// The options' optimizer and rate; what they leave open is as the directory's descent.toml says, else Adam
// with its defaults. kInvalid: no such optimizer, a rate that is none, a descent.toml that is wrong.
Result<DescentConfig> choose_config(const ExchangeOptions& options);

// One thread calls; the work is done on a pool of its own, so it is to be made after any fork.
class Updater {
 public:
  // threads: at least 1.
  static Result<std::unique_ptr<Updater>> make(const ModelLayout& layout, const DescentConfig& config,
                                               std::size_t threads);

  // All values are finite: what the filesystem asks of a gradient before it takes it.
  [[nodiscard]] bool is_finite(std::span<const float> gradient);
  // One step with scale times the sum of the gradients, each as long as parameters. At least one gradient.
  void apply(std::span<float> parameters, std::span<const float* const> gradients, float scale);

 private:
  struct Stripe {
    std::size_t tensor;
    std::size_t first;  // of all parameters
    std::size_t count;
  };
  Updater(const ModelLayout& layout, DescentConfig config, std::size_t threads);
  [[nodiscard]] const float* gradient_of(const Stripe& stripe, std::span<const float* const> gradients,
                                         float* sum) const;
  [[nodiscard]] KernelSpan span_of(const Stripe& stripe, std::span<float> parameters, const float* gradient);
  template <class Take>
  void each_stripe(Take&& take);  // take(index in stripes_, thread), on the pool
  [[nodiscard]] std::vector<KernelScalars> scalars(const std::vector<gradfs_hyper>& hypers) const;
  void find_trust_ratios(std::span<float> parameters, std::span<const float* const> gradients,
                         std::vector<gradfs_hyper>& hypers);

  const DescentConfig config_;
  std::vector<DescentConfig::ForTensor> tensors_;
  std::vector<Stripe> stripes_;
  std::vector<FloatArray> states_;
  std::vector<std::vector<float>> sums_;  // a stripe's sum for each thread
  std::uint64_t steps_ = 0;
  ThreadPool pool_;
};

}  // namespace gradfs::trainer
