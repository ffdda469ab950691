#include "trainer/network.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/trainer/local_architecture.h"

namespace gradfs::trainer {
namespace {

class EveryKernel : public testing::TestWithParam<const DenseKernels*> {};

INSTANTIATE_TEST_SUITE_P(Network, EveryKernel, testing::ValuesIn(supported_dense_kernels()),
                         [](const auto& info) { return std::string(info.param->name); });

// Odd sizes, so that no vector loop goes up.
const std::vector<std::size_t> kWidths = {7, 19, 33, 5};
constexpr std::size_t kRows = 11;

struct Problem {
  std::vector<DenseLayer> layers = chain(kWidths);
  std::vector<float> parameters = std::vector<float>(parameter_count(layers));
  std::vector<float> batch = std::vector<float>(kRows * kWidths.front());
  std::vector<std::uint8_t> labels = std::vector<std::uint8_t>(kRows);

  Problem() {
    initialise(layers, 3, parameters.data());
    SeededRandom random(9);
    for (float& value : batch) value = static_cast<float>(random.next_u64() % 256) / 255.0f;
    for (std::uint8_t& label : labels) label = static_cast<std::uint8_t>(random.next_u64() % kWidths.back());
  }

  // The loss in double precision, by the definition.
  [[nodiscard]] double loss(const std::vector<double>& values, double smoothing = 0) const {
    double total = 0;
    for (std::size_t row = 0; row < kRows; ++row) {
      std::vector<double> in(batch.begin() + static_cast<std::ptrdiff_t>(row * kWidths.front()),
                             batch.begin() + static_cast<std::ptrdiff_t>((row + 1) * kWidths.front()));
      for (std::size_t l = 0; l < layers.size(); ++l) {
        std::vector<double> out(layers[l].outputs);
        for (std::size_t o = 0; o < out.size(); ++o) {
          out[o] = values[layers[l].bias_offset + o];
          for (std::size_t i = 0; i < in.size(); ++i) {
            out[o] += values[layers[l].weight_offset + o * in.size() + i] * in[i];
          }
          if (l + 1 < layers.size()) out[o] = std::max(out[o], 0.0);
        }
        in = std::move(out);
      }
      double sum = 0;
      for (const double value : in) sum += std::exp(value);
      for (std::size_t o = 0; o < in.size(); ++o) {
        const double target =
            smoothing / static_cast<double>(in.size()) + (o == labels[row] ? 1 - smoothing : 0);
        total += target * (std::log(sum) - in[o]);
      }
    }
    return total;
  }
};

void expect_numerical_gradient(const DenseKernels& kernels, double smoothing) {
  Problem problem;
  Network network(problem.layers, kRows, static_cast<float>(smoothing), kernels);
  std::ranges::copy(problem.batch, network.batch().begin());
  std::vector<float> gradient(problem.parameters.size(), 1e9f);
  const double loss =
      network.gradient(problem.parameters.data(), problem.labels, 0.5f, false, gradient.data());

  std::vector<double> values(problem.parameters.begin(), problem.parameters.end());
  EXPECT_NEAR(loss, problem.loss(values), 1e-4);
  constexpr double kStep = 1e-5;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double kept = values[i];
    values[i] = kept + kStep;
    const double above = problem.loss(values, smoothing);
    values[i] = kept - kStep;
    const double below = problem.loss(values, smoothing);
    values[i] = kept;
    ASSERT_NEAR(gradient[i], 0.5 * (above - below) / (2 * kStep), 2e-5) << "parameter " << i;
  }
}

TEST_P(EveryKernel, GradientIsTheNumericalOne) { expect_numerical_gradient(*GetParam(), 0); }

TEST_P(EveryKernel, GradientToASmoothedTargetIsTheNumericalOne) {
  expect_numerical_gradient(*GetParam(), 0.2);
}

TEST_P(EveryKernel, TwoBatchesAccumulateToOne) {
  Problem problem;
  Network network(problem.layers, kRows, 0, *GetParam());
  const std::size_t inputs = kWidths.front();
  std::vector<float> whole(problem.parameters.size());
  std::ranges::copy(problem.batch, network.batch().begin());
  const double loss =
      network.gradient(problem.parameters.data(), problem.labels, 1.0f / kRows, false, whole.data());

  constexpr std::size_t kFirst = 4;
  std::vector<float> summed(whole.size());
  std::copy_n(problem.batch.begin(), kFirst * inputs, network.batch().begin());
  double parts = network.gradient(problem.parameters.data(), std::span(problem.labels).first(kFirst),
                                  1.0f / kRows, false, summed.data());
  std::copy_n(problem.batch.begin() + kFirst * inputs, (kRows - kFirst) * inputs, network.batch().begin());
  parts += network.gradient(problem.parameters.data(), std::span(problem.labels).subspan(kFirst),
                            1.0f / kRows, true, summed.data());
  EXPECT_NEAR(parts, loss, 1e-4);
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(summed[i], whole[i], 1e-6) << i;
}

TEST_P(EveryKernel, CountsTheRightOnes) {
  const std::vector<DenseLayer> layers = chain({2, 3});
  // The outputs are x, y and 0.5.
  const std::vector<float> parameters = {1, 0, 0, 1, 0, 0, 0, 0, 0.5f};
  Network network(layers, 4, 0, *GetParam());
  const std::vector<float> batch = {1, 0, 0, 1, 0, 0, std::nanf(""), 0};
  std::ranges::copy(batch, network.batch().begin());
  EXPECT_EQ(network.count_correct(parameters.data(), std::vector<std::uint8_t>{0, 1, 2, 0}), 3u);
  EXPECT_EQ(network.count_correct(parameters.data(), std::vector<std::uint8_t>{1, 1, 0, 1}), 1u);
}

TEST_P(EveryKernel, SurvivesLargeOutputs) {
  const std::vector<DenseLayer> layers = chain({1, 2});
  const std::vector<float> parameters = {500, -500, 0, 0};
  Network network(layers, 1, 0, *GetParam());
  network.batch()[0] = 1;
  std::vector<float> gradient(parameters.size());
  const double loss =
      network.gradient(parameters.data(), std::vector<std::uint8_t>{1}, 1, false, gradient.data());
  EXPECT_NEAR(loss, 1000, 1e-3);
  EXPECT_FLOAT_EQ(gradient[0], 1);
  EXPECT_FLOAT_EQ(gradient[1], -1);
}

TEST_P(EveryKernel, ShowsWhatIsNotANumber) {
  for (std::size_t at = 0; at < kWidths.front(); ++at) {
    Problem problem;
    problem.batch[4 * kWidths.front() + at] = std::numeric_limits<float>::quiet_NaN();
    Network network(problem.layers, kRows, 0, *GetParam());
    std::ranges::copy(problem.batch, network.batch().begin());
    std::vector<float> gradient(problem.parameters.size());
    const double loss =
        network.gradient(problem.parameters.data(), problem.labels, 1, false, gradient.data());
    EXPECT_TRUE(std::isnan(loss)) << "feature " << at;
    for (const DenseLayer& layer : problem.layers) {
      EXPECT_FALSE(std::isfinite(gradient[layer.bias_offset])) << "feature " << at;
    }
  }
}

TEST(Network, CountsItsArithmetic) {
  EXPECT_EQ(Network(chain({3, 4}), 1).gradient_flops(5), 2 * 2 * 5 * 12);
  EXPECT_EQ(Network(chain({3, 4, 2}), 1).gradient_flops(5), 2 * 2 * 5 * 12 + 3 * 2 * 5 * 8);
}

}  // namespace
}  // namespace gradfs::trainer
