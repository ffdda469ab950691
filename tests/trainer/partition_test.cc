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

TEST(Partition, EverySampleGoesToOneWorker) {
  const auto dealt = deal_rows(1003, 7, 3, 1).value();
  ASSERT_EQ(dealt.size(), 3u);
  Rows all;
  for (const Rows& rows : dealt) all.insert(all.end(), rows.begin(), rows.end());
  EXPECT_EQ(sorted(all), first(1003));
  // Partitions 0, 3, 6 of seven go to the first worker.
  EXPECT_NEAR(static_cast<double>(dealt[0].size()), 3 * 1003 / 7.0, 3);
  EXPECT_NEAR(static_cast<double>(dealt[1].size()), 2 * 1003 / 7.0, 2);
}

TEST(Partition, FollowsTheSeed) {
  EXPECT_EQ(deal_rows(100, 2, 2, 5).value(), deal_rows(100, 2, 2, 5).value());
  EXPECT_NE(deal_rows(100, 2, 2, 5).value(), deal_rows(100, 2, 2, 6).value());
}

TEST(Partition, RefusesWorkersWithoutWork) {
  const auto idle = deal_rows(100, 2, 3, 1);
  ASSERT_FALSE(idle);
  EXPECT_EQ(idle.error().message(), "invalid: 3 workers need at least as many partitions, not 2");
  const auto empty = deal_rows(3, 4, 2, 1);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().message(), "invalid: 3 samples cannot be cut into 4 partitions");
}

TEST(BatchPlan, GivesEveryRowOnceAnEpochInANewOrder) {
  BatchPlan plan(first(10), 4, 1, 2, 1);
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

TEST(BatchPlan, GroupsBatchesWithinAnEpoch) {
  BatchPlan plan(first(10), 2, 3, 1, 1);
  EXPECT_EQ(plan.next().size(), 6u);
  EXPECT_EQ(plan.next().size(), 4u);
  EXPECT_TRUE(plan.next().empty());
}

TEST(BatchPlan, WithoutEpochsHasNoEnd) {
  BatchPlan plan(first(3), 2, 1, 0, 1);
  for (int i = 0; i < 1000; ++i) ASSERT_FALSE(plan.next().empty());
}

}  // namespace
}  // namespace gradfs::trainer
