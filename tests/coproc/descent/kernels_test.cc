#include "coproc/descent/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace gradfs {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMax = std::numeric_limits<float>::max();

struct AllFinite : ::testing::Test {
  // Whether each kernel calls these floats finite, at an alignment that is not that of a float too.
  static std::vector<bool> answers(const std::vector<float>& values, float scale) {
    std::vector<std::byte> bytes(values.size() * sizeof(float) + 1);
    std::vector<bool> out;
    for (const Kernels* const* kernels = all_kernels(); *kernels != nullptr; ++kernels) {
      for (const std::size_t shift : {0, 1}) {
        if (!values.empty()) std::memcpy(&bytes[shift], values.data(), values.size() * sizeof(float));
        out.push_back((*kernels)->all_finite(bytes.data() + shift, values.size(), scale));
      }
    }
    return out;
  }
};

TEST_F(AllFinite, OneBadValueAnywhereIsFound) {
  for (const std::size_t count : {1, 15, 16, 255, 256, 257, 600}) {
    std::vector<float> values(count, -1.5F);
    EXPECT_THAT(answers(values, 1.0F), ::testing::Each(true)) << count;
    for (std::size_t i = 0; i < count; ++i) {
      for (const float bad : {kInf, -kInf, kNan, -kNan}) {
        values[i] = bad;
        EXPECT_THAT(answers(values, 1.0F), ::testing::Each(false)) << bad << " at " << i << " of " << count;
      }
      values[i] = -1.5F;
    }
  }
}

TEST_F(AllFinite, ExtremesAreFinite) {
  const float least = std::numeric_limits<float>::denorm_min();
  EXPECT_THAT(answers({kMax, -kMax, least, -least, 0.0F, -0.0F}, 1.0F), ::testing::Each(true));
  EXPECT_THAT(answers({}, 1.0F), ::testing::Each(true));
}

TEST_F(AllFinite, TheScaledValueCounts) {
  EXPECT_THAT(answers({1.0F, -kMax}, 1.5F), ::testing::Each(false));
  EXPECT_THAT(answers({1.0F, -kMax / 2}, 1.5F), ::testing::Each(true));
  EXPECT_THAT(answers({kMax, kInf}, 0.5F), ::testing::Each(false));
  EXPECT_THAT(answers({kMax, kNan}, 0.0F), ::testing::Each(false));
  EXPECT_THAT(answers({kMax, kInf}, 0.0F), ::testing::Each(false));
  EXPECT_THAT(answers({1.0F, 2.0F}, kInf), ::testing::Each(false));
}

}  // namespace
}  // namespace gradfs
