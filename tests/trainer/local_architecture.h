// An architecture for tests: the model in memory that forked workers share, stepped by a plain Adam under a
// lock.
#pragma once

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "fs/base/check.h"
#include "fs/base/clock.h"
#include "trainer/exchange.h"

namespace gradfs::trainer {

// Layers of the given widths, weight before bias, one after the other.
inline std::vector<DenseLayer> chain(const std::vector<std::size_t>& widths) {
  std::vector<DenseLayer> layers;
  std::size_t at = 0;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    layers.push_back({widths[i], widths[i + 1], at, at + widths[i] * widths[i + 1]});
    at += widths[i + 1] * (widths[i] + 1);
  }
  return layers;
}

inline std::size_t parameter_count(const std::vector<DenseLayer>& layers) {
  return layers.back().bias_offset + layers.back().outputs;
}

// Uniform between -1 and 1, over the root of the layer's inputs.
inline void initialise(const std::vector<DenseLayer>& layers, std::uint64_t seed, float* parameters) {
  SeededRandom random(seed);
  for (const DenseLayer& layer : layers) {
    const float bound = 1.0f / std::sqrt(static_cast<float>(layer.inputs));
    const auto draw = [&] {
      return bound * (2.0f * static_cast<float>(random.next_u64() >> 40) / 0x1p24f - 1.0f);
    };
    std::generate_n(parameters + layer.weight_offset, layer.inputs * layer.outputs, draw);
    std::generate_n(parameters + layer.bias_offset, layer.outputs, draw);
  }
}

class LocalModel {
 public:
  explicit LocalModel(std::size_t count) : count_(count) {
    bytes_ = sizeof(Shared) + 3 * count * sizeof(float);
    void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    GRADFS_CHECK(memory != MAP_FAILED);
    shared_ = new (memory) Shared;
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    ::pthread_mutex_init(&shared_->mutex, &attributes);
    ::pthread_mutexattr_destroy(&attributes);
  }
  ~LocalModel() { ::munmap(shared_, bytes_); }
  LocalModel(const LocalModel&) = delete;
  LocalModel& operator=(const LocalModel&) = delete;

  [[nodiscard]] float* parameters() const { return reinterpret_cast<float*>(shared_ + 1); }
  [[nodiscard]] std::size_t count() const { return count_; }
  [[nodiscard]] std::uint64_t version() const { return shared_->version; }

  void step(const float* gradient, float rate) {
    if (::pthread_mutex_lock(&shared_->mutex) == EOWNERDEAD) ::pthread_mutex_consistent(&shared_->mutex);
    const auto t = static_cast<float>(++shared_->version);
    const float correction1 = 1 - std::pow(0.9f, t);
    const float correction2 = std::sqrt(1 - std::pow(0.999f, t));
    float* p = parameters();
    float* m = p + count_;
    float* v = m + count_;
    for (std::size_t i = 0; i < count_; ++i) {
      m[i] = 0.9f * m[i] + 0.1f * gradient[i];
      v[i] = 0.999f * v[i] + 0.001f * gradient[i] * gradient[i];
      p[i] -= rate / correction1 * m[i] / (std::sqrt(v[i]) / correction2 + 1e-8f);
    }
    ::pthread_mutex_unlock(&shared_->mutex);
  }

 private:
  struct alignas(64) Shared {
    pthread_mutex_t mutex;
    std::uint64_t version = 0;
  };
  std::size_t count_;
  std::size_t bytes_;
  Shared* shared_;
};

class LocalExchange final : public Exchange {
 public:
  LocalExchange(LocalModel& model, float rate, bool live)
      : model_(model), rate_(rate), live_(live), gradient_(model.count()) {}
  Result<std::span<const float>> current() override {
    const std::span<const float> live(model_.parameters(), model_.count());
    if (live_) return live;
    copy_.assign(live.begin(), live.end());
    return copy_;
  }
  [[nodiscard]] std::uint64_t bytes_moved() const override { return 0; }
  std::span<float> gradient() override { return gradient_; }
  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    if (!std::isfinite(loss)) return Error(Errc::kNotFinite, "loss");
    model_.step(gradient_.data(), rate_);
    return PushOutcome::kCounted;
  }

 private:
  LocalModel& model_;
  float rate_;
  bool live_;
  std::vector<float> copy_;
  std::vector<float> gradient_;
};

class LocalArchitecture final : public Architecture {
 public:
  LocalArchitecture(const std::vector<std::size_t>& widths, float rate, std::uint64_t seed, bool live = true)
      : layers_(chain(widths)),
        rate_(rate),
        live_(live),
        model_(parameter_count(layers_)),
        observer_(model_, rate, true) {
    initialise(layers_, seed, model_.parameters());
  }
  [[nodiscard]] std::string name() const override { return "local"; }
  [[nodiscard]] const std::vector<DenseLayer>& layers() const override { return layers_; }
  [[nodiscard]] std::uint64_t parameters() const override { return model_.count(); }
  ParameterSource& observer() override { return observer_; }
  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    return std::unique_ptr<Exchange>(std::make_unique<LocalExchange>(model_, rate_, live_));
  }
  void clean_up(std::size_t workers) override {}
  [[nodiscard]] std::optional<std::uint64_t> version() const override { return model_.version(); }
  [[nodiscard]] std::string optimizer() const override { return "adam"; }

 private:
  std::vector<DenseLayer> layers_;
  float rate_;
  bool live_;
  LocalModel model_;
  LocalExchange observer_;
};

}  // namespace gradfs::trainer
