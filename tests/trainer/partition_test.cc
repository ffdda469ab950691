#include "trainer/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace gradfs::trainer {
namespace {

Rows sorted(Rows rows) {
  std::ranges::sort(rows);
  return rows;
}

Rows first(std::size_t count) {
  Rows rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

Rows joined(const std::vector<Rows>& partitions) {
  Rows rows;
  for (const Rows& partition : partitions) rows.insert(rows.end(), partition.begin(), partition.end());
  return rows;
}

TEST(Partition, EverySampleGoesToOneWorker) {
  const auto dealt = deal_partitions(1003, 7, 3, 1).value();
  ASSERT_EQ(dealt.size(), 3u);
  Rows all;
  for (const auto& partitions : dealt) {
    const Rows rows = joined(partitions);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  EXPECT_EQ(sorted(all), first(1003));
  // Partitions 0, 3, 6 of seven go to the first worker, two to each of the others.
  EXPECT_EQ(dealt[0].size(), 3u);
  EXPECT_EQ(dealt[2].size(), 2u);
  for (const auto& partitions : dealt) {
    for (const Rows& rows : partitions) EXPECT_NEAR(static_cast<double>(rows.size()), 1003 / 7.0, 1);
  }
}

TEST(Partition, FollowsTheSeed) {
  EXPECT_EQ(deal_partitions(100, 2, 2, 5).value(), deal_partitions(100, 2, 2, 5).value());
  EXPECT_NE(deal_partitions(100, 2, 2, 5).value(), deal_partitions(100, 2, 2, 6).value());
}

TEST(Partition, MoreWorkersThanPartitionsLeaveTheLastWithoutWork) {
  const auto dealt = deal_partitions(100, 2, 3, 1).value();
  EXPECT_EQ(joined(dealt[0]).size() + joined(dealt[1]).size(), 100u);
  EXPECT_TRUE(dealt[2].empty());
  EXPECT_TRUE(BatchPlan(dealt[2], 4, 1, 0, 1).next().empty());
}

TEST(Partition, RefusesMorePartitionsThanSamples) {
  const auto empty = deal_partitions(3, 4, 2, 1);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().message(), "invalid: 3 samples cannot be cut into 4 partitions");
}

TEST(BatchPlan, GivesEveryRowOnceAnEpochInANewOrder) {
  BatchPlan plan({first(10)}, 4, 1, 2, 1);
  std::vector<Rows> epochs(2);
  for (Rows& epoch : epochs) {
    for (const std::size_t size : {4u, 4u, 2u}) {
      const auto rows = plan.next();
      ASSERT_EQ(rows.size(), size);
      epoch.insert(epoch.end(), rows.begin(), rows.end());
    }
    EXPECT_EQ(sorted(epoch), first(10));
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_TRUE(plan.next().empty());
  EXPECT_TRUE(plan.next().empty());
}

TEST(BatchPlan, EndsInTheMiddleOfAnEpoch) {
  BatchPlan part({first(40), first(60)}, 10, 1, 0.45, 1);
  std::size_t rows = 0;
  for (auto next = part.next(); !next.empty(); next = part.next()) rows += next.size();
  EXPECT_EQ(rows, 50u);  // 45, and the push under way goes on to its end
  EXPECT_TRUE(part.next().empty());
  BatchPlan more({first(40), first(60)}, 10, 1, 1.5, 1);
  BatchPlan whole({first(40), first(60)}, 10, 1, 2, 1);
  for (int k = 0; k < 15; ++k) {
    const auto expected = whole.next();
    const auto got = more.next();
    ASSERT_TRUE(std::ranges::equal(got, expected)) << k;
  }
  EXPECT_TRUE(more.next().empty());
}

TEST(BatchPlan, GroupsBatchesWithinAnEpoch) {
  BatchPlan plan({first(10)}, 2, 3, 1, 1);
  EXPECT_EQ(plan.next().size(), 6u);
  EXPECT_EQ(plan.next().size(), 4u);
  EXPECT_TRUE(plan.next().empty());
}

TEST(BatchPlan, EndsABatchAtTheEndOfAPartition) {
  const Rows low = {0, 1, 2, 3, 4};
  const Rows high = {10, 11, 12};
  BatchPlan plan({low, high}, 4, 1, 3, 1);
  for (int epoch = 0; epoch < 3; ++epoch) {
    Rows seen;
    for (std::size_t batch = 0; batch < 3; ++batch) {
      const auto rows = plan.next();
      ASSERT_FALSE(rows.empty());
      const bool is_high = rows.front() >= 10;
      for (const std::uint32_t row : rows) EXPECT_EQ(row >= 10, is_high) << "a batch of two partitions";
      seen.insert(seen.end(), rows.begin(), rows.end());
    }
    EXPECT_EQ(sorted(seen), sorted(joined({low, high})));
  }
  EXPECT_TRUE(plan.next().empty());
}

TEST(BatchPlan, WithoutEpochsHasNoEnd) {
  BatchPlan plan({first(3)}, 2, 1, 0, 1);
  for (int i = 0; i < 1000; ++i) ASSERT_FALSE(plan.next().empty());
}

}  // namespace
}  // namespace gradfs::trainer
