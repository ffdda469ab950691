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

// Sizes around the blocks and thresholds of the products; widths with and without a rest.
const std::vector<std::size_t> kBatches = {1, 2, 7, 8, 9, 31, 63, 64, 65, 128, 129, 260};
const std::vector<std::size_t> kBlockWidths = {50, 1040, 96, 7, 3};

struct Batch {
  std::vector<DenseLayer> layers = chain(kBlockWidths);
  std::vector<float> parameters = std::vector<float>(parameter_count(layers));
  std::vector<float> rows;
  std::vector<std::uint8_t> labels;

  explicit Batch(std::size_t count) : rows(count * kBlockWidths.front()), labels(count) {
    initialise(layers, 5, parameters.data());
    SeededRandom random(count);
    for (float& value : rows) value = static_cast<float>(random.next_u64() % 256) / 128.0f - 1.0f;
    for (std::uint8_t& label : labels) {
      label = static_cast<std::uint8_t>(random.next_u64() % kBlockWidths.back());
    }
  }
};

TEST_P(EveryKernel, AnyBatchGivesTheSumOfItsRows) {
  const std::size_t inputs = kBlockWidths.front();
  for (const std::size_t count : kBatches) {
    const Batch batch(count);
    Network network(batch.layers, count, 0, *GetParam());
    std::ranges::copy(batch.rows, network.batch().begin());
    std::vector<float> whole(batch.parameters.size(), 1e9f);
    const double loss = network.gradient(batch.parameters.data(), batch.labels, 1, false, whole.data());
    const std::size_t correct = network.count_correct(batch.parameters.data(), batch.labels);

    std::vector<float> row_gradient(whole.size());
    std::vector<double> summed(whole.size());
    std::vector<double> magnitude(whole.size(), 1);
    double summed_loss = 0;
    std::size_t summed_correct = 0;
    for (std::size_t row = 0; row < count; ++row) {
      std::copy_n(batch.rows.data() + row * inputs, inputs, network.batch().begin());
      const std::span label = std::span(batch.labels).subspan(row, 1);
      summed_loss += network.gradient(batch.parameters.data(), label, 1, false, row_gradient.data());
      summed_correct += network.count_correct(batch.parameters.data(), label);
      for (std::size_t i = 0; i < summed.size(); ++i) {
        summed[i] += row_gradient[i];
        magnitude[i] += std::abs(row_gradient[i]);
      }
    }
    EXPECT_NEAR(loss, summed_loss, 1e-5 * static_cast<double>(count)) << "batch " << count;
    EXPECT_EQ(correct, summed_correct) << "batch " << count;
    for (std::size_t i = 0; i < summed.size(); ++i) {
      ASSERT_NEAR(whole[i], summed[i], 4e-6 * magnitude[i]) << "batch " << count << ", parameter " << i;
    }
  }
}

TEST_P(EveryKernel, BitsDoNotDependOnWhereBuffersLie) {
  for (const std::size_t count : kBatches) {
    const Batch batch(count);
    const std::size_t size = batch.parameters.size();
    std::vector<float> first;
    for (std::size_t shift = 0; shift < 18; shift += 5) {
      Network network(batch.layers, count, 0, *GetParam());
      std::ranges::copy(batch.rows, network.batch().begin());
      std::vector<float> parameters(size + shift);
      std::ranges::copy(batch.parameters, parameters.begin() + static_cast<std::ptrdiff_t>(shift));
      std::vector<float> gradient(size + 2 * shift);
      network.gradient(parameters.data() + shift, batch.labels, 1, false, gradient.data() + 2 * shift);
      gradient.erase(gradient.begin(), gradient.begin() + static_cast<std::ptrdiff_t>(2 * shift));
      if (shift == 0) first = gradient;
      EXPECT_EQ(gradient, first) << "batch " << count << ", shift " << shift;
    }
  }
}

// For the products of small and of large batches.
TEST_P(EveryKernel, ShowsParametersThatAreNotFinite) {
  for (const std::size_t count : {std::size_t{3}, std::size_t{100}}) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                              -std::numeric_limits<float>::infinity()}) {
      Batch batch(count);
      // A bias of the last layer: no ReLU hides it, and the loss of the first row takes it.
      batch.parameters[batch.layers.back().bias_offset + batch.labels[0]] = value;
      Network network(batch.layers, count, 0, *GetParam());
      std::ranges::copy(batch.rows, network.batch().begin());
      std::vector<float> gradient(batch.parameters.size());
      const double loss = network.gradient(batch.parameters.data(), batch.labels, 1, false, gradient.data());
      EXPECT_FALSE(std::isfinite(loss)) << "batch " << count << ", " << value;
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(gradient[0])) << "batch " << count;
      }
    }
  }
}

TEST(Network, CountsItsArithmetic) {
  EXPECT_EQ(Network(chain({3, 4}), 1).gradient_flops(5), 2 * 2 * 5 * 12);
  EXPECT_EQ(Network(chain({3, 4, 2}), 1).gradient_flops(5), 2 * 2 * 5 * 12 + 3 * 2 * 5 * 8);
}

}  // namespace
}  // namespace gradfs::trainer
