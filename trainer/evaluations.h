// When to look at the accuracy of a run, and how: at once, or later from kept parameters.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "trainer/evaluator.h"
#include "trainer/report.h"

namespace gradfs::trainer {

// Parameters that are kept for later take at most this; when it is used up, the oldest are evaluated at once.
inline constexpr std::uint64_t kKeptBytesMax = std::uint64_t{4} << 30;

// One thread. test and architecture must outlive it.
class Evaluations {
 public:
  // every: epochs between two; without it at 0.1, 0.25, 0.5 and then each half, and never so often that they
  // would take more than a fifth of the time.
  Evaluations(const Samples& test, Architecture& architecture, std::optional<double> every, bool later);

  [[nodiscard]] bool due(double epoch) const;
  // Evaluates what the architecture has now, or keeps it: then there is no accuracy yet. seen: all but the
  // accuracy.
  Result<std::optional<double>> take(const Evaluation& seen);
  // All of them, in order, those that were kept evaluated.
  Result<std::vector<Evaluation>> finish();
  [[nodiscard]] bool any() const noexcept { return !history_.empty(); }
  [[nodiscard]] std::uint64_t kept_bytes() const noexcept { return kept_.size() * parameter_bytes_; }

 private:
  struct Kept {
    std::size_t index;  // in history_
    std::vector<float> parameters;
  };
  Result<void> evaluate_oldest();
  [[nodiscard]] double next_after(double epoch) const;

  Architecture& architecture_;
  Evaluator evaluator_;
  const std::optional<double> every_;
  const bool later_;
  const std::uint64_t parameter_bytes_;
  std::vector<Evaluation> history_;
  std::deque<Kept> kept_;
  double next_;
  std::int64_t not_before_ns_ = 0;
};

}  // namespace gradfs::trainer
