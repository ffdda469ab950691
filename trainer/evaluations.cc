#include "trainer/evaluations.h"

#include <algorithm>
#include <cmath>

#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

constexpr double kEarly[] = {0.1, 0.25};  // epochs; afterwards each half
constexpr double kStep = 0.5;
constexpr double kRest = 4;  // as long as the last evaluation took, times this, none is made,
constexpr std::int64_t kGap_ns = 500 * kMillisecond_ns;  // nor for less than this

// Parameters that lie in this process already.
class Held final : public ParameterSource {
 public:
  explicit Held(std::span<const float> parameters) : parameters_(parameters) {}
  Result<std::span<const float>> current() override { return parameters_; }

 private:
  std::span<const float> parameters_;
};

}  // namespace

Evaluations::Evaluations(const Samples& test, Architecture& architecture, std::optional<double> every,
                         bool later)
    : architecture_(architecture),
      evaluator_(test, architecture.layers(), architecture.parameters()),
      every_(every),
      later_(later),
      parameter_bytes_(architecture.parameters() * sizeof(float)),
      next_(next_after(0)) {}

double Evaluations::next_after(double epoch) const {
  const double step = every_.value_or(kStep);
  if (!every_) {
    for (const double early : kEarly) {
      if (epoch < early) return early;
    }
  }
  return (std::floor(epoch / step) + 1) * step;
}

bool Evaluations::due(double epoch) const { return epoch >= next_ && real_now_ns() >= not_before_ns_; }

Result<std::optional<double>> Evaluations::take(const Evaluation& seen) {
  next_ = next_after(seen.epoch);
  const std::int64_t began_ns = real_now_ns();
  if (later_) {
    Kept kept{history_.size(), std::vector<float>(architecture_.parameters())};
    GRADFS_TRYV(architecture_.observer().fetch(kept.parameters));
    history_.push_back(seen);
    kept_.push_back(std::move(kept));
    if (kept_.size() * parameter_bytes_ > kKeptBytesMax) {
      GRADFS_TRYV(evaluate_oldest());
    }
    return std::optional<double>();
  }
  GRADFS_TRY(const double accuracy, evaluator_.accuracy(architecture_.observer()));
  history_.push_back(seen);
  history_.back().test_accuracy = accuracy;
  if (!every_) {
    const std::int64_t ended_ns = real_now_ns();
    const auto rest_ns = static_cast<std::int64_t>(kRest * static_cast<double>(ended_ns - began_ns));
    not_before_ns_ = ended_ns + std::max(rest_ns, kGap_ns);
  }
  return std::optional<double>(accuracy);
}

Result<void> Evaluations::evaluate_oldest() {
  Held held(kept_.front().parameters);
  GRADFS_TRY(const double accuracy, evaluator_.accuracy(held));
  history_[kept_.front().index].test_accuracy = accuracy;
  kept_.pop_front();
  return ok();
}

Result<std::vector<Evaluation>> Evaluations::finish() {
  while (!kept_.empty()) {
    GRADFS_TRYV(evaluate_oldest());
  }
  return history_;
}

}  // namespace gradfs::trainer
