#include "tools/bench/stats.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace gradfs::bench {
namespace {

TEST(Stats, MedianOfOddEvenAndNone) {
  EXPECT_EQ(median({3.0, 1.0, 2.0}), 2.0);
  EXPECT_EQ(median({4.0, 1.0, 2.0, 3.0}), 2.5);
  EXPECT_EQ(median({}), 0.0);
}

TEST(Stats, PercentileIsAValueThatWasSeen) {
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  EXPECT_EQ(percentile(values, 0.99), 99.0);
  EXPECT_EQ(percentile(values, 1.0), 100.0);
  EXPECT_EQ(percentile(values, 0.0), 1.0);
  EXPECT_EQ(percentile({7.0}, 0.99), 7.0);
  EXPECT_EQ(percentile({}, 0.5), 0.0);
}

TEST(Stats, APairedRatioDoesNotSeeASlowRound) {
  // The machine is three times slower in the second round: of the medians of both this would make 2 / 3.
  EXPECT_DOUBLE_EQ(paired_ratio({2.0, 6.0}, {1.0, 3.0}), 2.0);
  EXPECT_DOUBLE_EQ(paired_spread({2.0, 6.0}, {1.0, 3.0}), 0.0);
  EXPECT_DOUBLE_EQ(paired_ratio({1.0, 5.0}, {0.0, 1.0}), 5.0);
}

TEST(Stats, EverybodyTakesEachTurnEquallyOften) {
  std::multiset<std::vector<std::size_t>> orders;
  for (std::size_t round = 0; round < 6; ++round) {
    std::vector<std::size_t> order;
    for (std::size_t position = 0; position < 3; ++position) order.push_back(turn(round, position, 3));
    EXPECT_EQ(std::set<std::size_t>(order.begin(), order.end()).size(), 3U);
    orders.insert(order);
  }
  EXPECT_EQ(std::set<std::vector<std::size_t>>(orders.begin(), orders.end()).size(), 6U);
}

}  // namespace
}  // namespace gradfs::bench
