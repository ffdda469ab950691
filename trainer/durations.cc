#include "trainer/durations.h"

#include <algorithm>
#include <cmath>

namespace gradfs::trainer {

void Durations::add(std::int64_t duration_ns) {
  ++count_;
  if (kept_ns_.size() < kKept) {
    kept_ns_.push_back(duration_ns);
    return;
  }
  const std::uint64_t place = random_.next_u64() % count_;
  if (place < kKept) kept_ns_[place] = duration_ns;
}

std::optional<double> Durations::quantile_ms(double q) const {
  if (kept_ns_.empty()) return std::nullopt;
  std::vector<std::int64_t> times = kept_ns_;
  const double rank = std::ceil(q * static_cast<double>(times.size()));
  const auto index = static_cast<std::size_t>(std::clamp(rank, 1.0, static_cast<double>(times.size()))) - 1;
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(index));
  return static_cast<double>(times[index]) / static_cast<double>(kMillisecond_ns);
}

}  // namespace gradfs::trainer
