// Medians, percentiles and paired ratios of measurements.
#pragma once

#include <cstddef>
#include <vector>

namespace gradfs::bench {

// Of no values: 0. Of an even number: the mean of the middle two.
double median(std::vector<double> values);

// fraction in 0..1; the smallest value that at least this part of all values does not exceed. Of no values:
// 0.
double percentile(std::vector<double> values, double fraction);

// The median of gradfs[i] / reference[i]. What slows a whole round (another process, a slower clock) cancels
// out. The two have the same length; rounds whose reference is 0 are left out.
double paired_ratio(const std::vector<double>& gradfs, const std::vector<double>& reference);

// Half the distance between the quartiles of gradfs[i] / reference[i]: how far the rounds lie apart.
double paired_spread(const std::vector<double>& gradfs, const std::vector<double>& reference);

// Who of `count` takes turn `position` (0 .. count - 1) of a round (0, 1, ..): orders rotate and turn round,
// so that nobody always comes first, or always after the same one.
std::size_t turn(std::size_t round, std::size_t position, std::size_t count);

}  // namespace gradfs::bench
