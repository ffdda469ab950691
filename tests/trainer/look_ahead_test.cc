#include "trainer/look_ahead.h"

#include <gtest/gtest.h>

namespace gradfs::trainer {
namespace {

std::vector<float> at(LookAhead& ahead, const std::vector<float>& now) {
  const float* values = ahead.at(now);
  return {values, values + now.size()};
}

TEST(LookAhead, GoesOnAsTheParametersDid) {
  LookAhead ahead(0.5);
  EXPECT_EQ(at(ahead, {1, 2, -3}), (std::vector<float>{1, 2, -3}));
  EXPECT_EQ(at(ahead, {2, 2, -5}), (std::vector<float>{2.5, 2, -6}));
  EXPECT_EQ(at(ahead, {2, 4, -1}),
            (std::vector<float>{2, 5, 1}));  // from where they were, not from what it told
}

TEST(LookAhead, NeedsNoCopyTheFirstTime) {
  LookAhead ahead(1);
  const std::vector<float> now{1, 2};
  EXPECT_EQ(ahead.at(now), now.data());
  EXPECT_NE(ahead.at(now), now.data());
}

}  // namespace
}  // namespace gradfs::trainer
