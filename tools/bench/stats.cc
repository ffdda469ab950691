#include "tools/bench/stats.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "fs/base/check.h"

namespace gradfs::bench {
namespace {

std::vector<double> ratios(const std::vector<double>& gradfs, const std::vector<double>& reference) {
  GRADFS_CHECK(gradfs.size() == reference.size());
  std::vector<double> out;
  for (std::size_t i = 0; i < gradfs.size(); ++i) {
    if (reference[i] != 0.0) out.push_back(gradfs[i] / reference[i]);
  }
  return out;
}

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const std::size_t middle = values.size() / 2;
  std::sort(values.begin(), values.end());
  if (values.size() % 2 == 1) return values[middle];
  return (values[middle - 1] + values[middle]) / 2.0;
}

double percentile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(fraction * static_cast<double>(values.size()));
  const auto index = static_cast<std::size_t>(std::clamp(rank, 1.0, static_cast<double>(values.size())));
  return values[index - 1];
}

double paired_ratio(const std::vector<double>& gradfs, const std::vector<double>& reference) {
  return median(ratios(gradfs, reference));
}

double paired_spread(const std::vector<double>& gradfs, const std::vector<double>& reference) {
  const std::vector<double> all = ratios(gradfs, reference);
  return (percentile(all, 0.75) - percentile(all, 0.25)) / 2.0;
}

std::size_t turn(std::size_t round, std::size_t position, std::size_t count) {
  const std::size_t place = round % 2 == 0 ? position : count - 1 - position;
  return (place + round / 2) % count;
}

}  // namespace gradfs::bench
