// Durations: how long many events took, in bounded memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "fs/base/clock.h"

namespace gradfs::trainer {

// One thread. Keeps all times up to kKept of them, then a random sample of that many (reservoir sampling:
// Vitter, "Random Sampling with a Reservoir", 1985), the same for the same times.
class Durations {
 public:
  static constexpr std::size_t kKept = std::size_t{1} << 18;

  void add(std::int64_t duration_ns);
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  // The smallest time that at least a share q of all is not longer than (nearest rank); none before the
  // first.
  [[nodiscard]] std::optional<double> quantile_ms(double q) const;

 private:
  std::vector<std::int64_t> kept_ns_;
  std::uint64_t count_ = 0;
  SeededRandom random_{1};
};

}  // namespace gradfs::trainer
