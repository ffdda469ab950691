#include "coproc/descent/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "coproc/descent/layout.h"

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

struct Filled {
  std::vector<float> param, grad, state[2];

  explicit Filled(std::size_t n) {
    std::mt19937 random(static_cast<unsigned>(n));
    std::normal_distribution<float> normal;
    for (auto* array : {&param, &grad, &state[0], &state[1]}) {
      for (std::size_t i = 0; i < n; ++i) array->push_back(normal(random));
    }
    for (float& value : state[1]) value = std::fabs(value);
  }
};

gradfs_hyper some_hyper() {
  DescentConfig config = default_config(Optimizer::kLamb);
  return hyper_of(config, config.for_tensor("a"), {3, 0, 0.5F});
}

// Through the interface of plugins, in two phases, as an engine would.
TEST(Rules, LambMovesEachTensorByRateTimesItsNorm) {
  const gradfs_rule& rule = builtin_rule(Optimizer::kLamb);
  ASSERT_NE(rule.norms, nullptr);
  Filled now(1000);
  const std::vector<float> before = now.param;
  gradfs_hyper hyper = some_hyper();
  gradfs_span span{sizeof span,
                   now.param.size(),
                   now.param.data(),
                   now.grad.data(),
                   {now.state[0].data(), now.state[1].data()}};
  double squares[2];
  ASSERT_EQ(rule.norms(&span, &hyper, squares), 0);
  EXPECT_EQ(now.param, before);
  hyper.trust_ratio = trust_ratio_of(squares[0], squares[1]);
  ASSERT_EQ(rule.apply(&span, &hyper), 0);
  double norm = 0, moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    norm += std::pow(before[i], 2);
    moved += std::pow(static_cast<double>(now.param[i]) - before[i], 2);
  }
  EXPECT_NEAR(squares[0], norm, 1e-9 * norm);
  EXPECT_NEAR(std::sqrt(moved), hyper.lr * std::sqrt(norm), 1e-4 * hyper.lr * std::sqrt(norm));
}

TEST(Rules, OnlyLambHasNorms) {
  for (const Optimizer optimizer : kAllOptimizers) {
    EXPECT_EQ(builtin_rule(optimizer).norms != nullptr, optimizer == Optimizer::kLamb);
    EXPECT_EQ(norms_kernel_of(kernels(), optimizer) != nullptr, optimizer == Optimizer::kLamb);
    EXPECT_EQ(builtin_rule(optimizer).name, to_text(optimizer));
  }
}

TEST(Rules, SumsOfSquaresAreTheSameOnEveryProcessor) {
  for (const std::size_t n : {1, 3, 15, 16, 17, 127, 128, 129, 1000, 1024}) {
    const Filled now(n);
    KernelSpan span;
    span.n = n;
    span.param = now.param.data();
    span.grad = now.grad.data();
    for (int i = 0; i < 2; ++i) span.state[i] = now.state[i].data();
    const KernelScalars scalars = scalars_of(Optimizer::kLamb, some_hyper());
    double first[2];
    kernels().lamb_norms(span, scalars, first);
    double exact = 0;
    for (const float value : now.param) exact += static_cast<double>(value) * static_cast<double>(value);
    EXPECT_NEAR(first[0], exact, 1e-12 * exact);
    for (const Kernels* const* one = all_kernels(); *one != nullptr; ++one) {
      double squares[2];
      (*one)->lamb_norms(span, scalars, squares);
      EXPECT_EQ(squares[0], first[0]) << (*one)->name << " " << n;
      EXPECT_EQ(squares[1], first[1]) << (*one)->name << " " << n;
    }
  }
}

TEST(Rules, WhatIsNotFiniteOrZeroHasTheTrustRatioOne) {
  EXPECT_EQ(trust_ratio_of(9.0, 4.0), 1.5);
  EXPECT_EQ(trust_ratio_of(0.0, 4.0), 1.0);
  EXPECT_EQ(trust_ratio_of(9.0, 0.0), 1.0);
  EXPECT_EQ(trust_ratio_of(std::nan(""), 4.0), 1.0);
  EXPECT_EQ(trust_ratio_of(9.0, std::nan("")), 1.0);
}

}  // namespace
}  // namespace gradfs
