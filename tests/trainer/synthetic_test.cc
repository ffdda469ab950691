#include "trainer/synthetic.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "fs/base/check.h"
#include "tests/trainer/local_architecture.h"
#include "tests/trainer/sample_rows.h"
#include "trainer/network.h"
#include "trainer/usage.h"

namespace gradfs::trainer {
namespace {

Dataset generate(const std::string& name, std::uint64_t rows, std::uint64_t seed) {
  return std::move(load_dataset({.name = name, .directory = "", .rows = rows, .seed = seed}).value());
}

TEST(Synthetic, ShapesAreThoseOfTheTalk) {
  const Dataset higgs = generate("higgs", 0, 1);
  EXPECT_EQ(higgs.train->features(), 28u);
  EXPECT_EQ(higgs.train->classes(), 2u);
  EXPECT_EQ(higgs.train->rows(), 200'000u);
  EXPECT_EQ(higgs.test->rows(), 2'000u);
  const Dataset molecular = generate("molecular", 10, 1);
  EXPECT_EQ(molecular.train->features(), 2871u);
  EXPECT_EQ(molecular.train->classes(), 15u);
}

TEST(Synthetic, RowsFollowFromTheSeed) {
  for (const char* name : {"higgs", "molecular"}) {
    const Dataset one = generate(name, 100, 1);
    const Dataset same = generate(name, 1'000'000, 1);
    const Dataset other = generate(name, 100, 2);
    EXPECT_EQ(row_of(*one.train, 77), row_of(*same.train, 77)) << name;
    EXPECT_NE(row_of(*one.train, 77), row_of(*other.train, 77)) << name;
    EXPECT_NE(row_of(*one.train, 77), row_of(*one.test, 77)) << name << ": training rows are tested";
    EXPECT_NE(row_of(*one.train, 77), row_of(*one.train, 78)) << name;
  }
}

TEST(Synthetic, RowsAreTheSameInAnyBatch) {
  const Dataset data = generate("molecular", 1000, 1);
  const std::vector<std::uint32_t> numbers = {999, 3, 500};
  std::vector<float> features(3 * data.train->features());
  std::vector<std::uint8_t> labels(3);
  ASSERT_TRUE(data.train->gather(numbers, features, labels));
  for (std::size_t i = 0; i < 3; ++i) {
    const Row row = row_of(*data.train, numbers[i]);
    EXPECT_EQ(labels[i], row.label);
    EXPECT_TRUE(std::equal(row.features.begin(), row.features.end(),
                           features.begin() + static_cast<std::ptrdiff_t>(i * row.features.size())));
  }
}

TEST(Synthetic, FeaturesHaveMeanZeroAndVarianceOne) {
  for (const char* name : {"higgs", "molecular"}) {
    const Dataset data = generate(name, 500, 3);
    double sum = 0;
    double squares = 0;
    double count = 0;
    for (std::uint32_t i = 0; i < 500; ++i) {
      for (const float value : row_of(*data.train, i).features) {
        sum += static_cast<double>(value);
        squares += static_cast<double>(value) * static_cast<double>(value);
        ++count;
      }
    }
    EXPECT_NEAR(sum / count, 0, 0.06) << name;
    EXPECT_NEAR(squares / count, 1, 0.08) << name;
  }
}

// The class whose mean is nearest is right more often than chance, and far less often than the function.
TEST(Synthetic, AreNeitherChanceNorTrivial) {
  const Dataset data = generate("higgs", 4000, 1);
  std::vector<std::vector<double>> means(2, std::vector<double>(28));
  std::vector<double> counts(2);
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const Row row = row_of(*data.train, i);
    counts[row.label] += 1;
    for (std::size_t j = 0; j < 28; ++j) means[row.label][j] += static_cast<double>(row.features[j]);
  }
  EXPECT_GT(counts[0], 0.3 * 4000);
  EXPECT_GT(counts[1], 0.3 * 4000);
  std::size_t right = 0;
  for (std::uint32_t i = 0; i < 2000; ++i) {
    const Row row = row_of(*data.test, i);
    const auto distance = [&](std::size_t c) {
      double sum = 0;
      for (std::size_t j = 0; j < 28; ++j) {
        sum += std::pow(static_cast<double>(row.features[j]) - means[c][j] / counts[c], 2);
      }
      return sum;
    };
    right += (distance(0) < distance(1) ? 0u : 1u) == row.label ? 1 : 0;
  }
  EXPECT_GT(right, 0.6 * 2000);
  EXPECT_LT(right, 0.92 * 2000);
}

TEST(Synthetic, TenMillionRowsTakeNoMemory) {
  const std::uint64_t before = proportional_bytes(::getpid()).value();
  const Dataset data = generate("higgs", 10'000'000, 1);
  EXPECT_EQ(data.train->rows(), 10'000'000u);
  EXPECT_EQ(row_of(*data.train, 9'999'999).features.size(), 28u);
  EXPECT_LT(proportional_bytes(::getpid()).value(), before + (8 << 20));
}

std::vector<std::uint32_t> first_rows(std::size_t count) {
  std::vector<std::uint32_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The first rows of a set, all at once.
struct Rows {
  std::vector<float> features;
  std::vector<std::uint8_t> labels;
  Rows(const Samples& samples, std::size_t count) : features(count * samples.features()), labels(count) {
    GRADFS_CHECK(samples.gather(first_rows(count), features, labels).has_value());
  }
};

// Fowler, Noll and Vo's.
std::uint64_t hash_of(const Rows& rows) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](std::uint32_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const float value : rows.features) add(std::bit_cast<std::uint32_t>(value));
  for (const std::uint8_t label : rows.labels) add(label);
  return hash;
}

TEST(Synthetic, EveryMachineGeneratesTheSameBits) {
  EXPECT_EQ(hash_of(Rows(*generate("higgs", 100, 1).train, 100)), 3147495751508895072U);
  EXPECT_EQ(hash_of(Rows(*generate("molecular", 100, 1).train, 100)), 17009534806919624475U);
}

TEST(Synthetic, NoRowIsThereTwice) {
  const Dataset data = generate("higgs", 20'000, 1);
  std::set<std::vector<float>> rows;
  for (const Samples* part : {data.train.get(), data.test.get()}) {
    const Rows all(*part, part->rows());
    for (auto at = all.features.begin(); at != all.features.end(); at += 28) rows.emplace(at, at + 28);
  }
  EXPECT_EQ(rows.size(), 22'000u);
}

TEST(Synthetic, ClassesAreAboutEquallyFrequent) {
  for (const char* name : {"higgs", "molecular"}) {
    for (const std::uint64_t seed : {1, 2, 3}) {
      const Dataset data = generate(name, 3000, seed);
      std::vector<double> counts(data.train->classes());
      for (const std::uint8_t label : Rows(*data.train, 3000).labels) counts.at(label) += 1;
      const double fair = 3000 / static_cast<double>(counts.size());
      EXPECT_GT(*std::ranges::min_element(counts), 0.6 * fair) << name << seed;
      EXPECT_LT(*std::ranges::max_element(counts), 1.6 * fair) << name << seed;
    }
  }
}

TEST(Synthetic, ShareOfRandomLabelsIsKnown) {
  constexpr std::size_t kCount = 20'000;
  SyntheticShape shape = kHiggs;
  const Rows noisy(*make_synthetic_samples(shape, 1, 0, kCount), kCount);
  shape.label_noise = 0;
  const Rows planted(*make_synthetic_samples(shape, 1, 0, kCount), kCount);
  EXPECT_EQ(noisy.features, planted.features);
  std::size_t different = 0;
  for (std::size_t i = 0; i < kCount; ++i) different += noisy.labels[i] != planted.labels[i] ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(different) / kCount, 1 - best_accuracy(kHiggs), 0.003);
  EXPECT_DOUBLE_EQ(best_accuracy(kHiggs), 0.99);
  EXPECT_DOUBLE_EQ(best_accuracy(shape), 1);
}

// What a network of these widths gets right in the test rows, after one pass with Adam.
double accuracy_of(const std::vector<std::size_t>& widths, const Dataset& data) {
  constexpr std::size_t kBatch = 32;
  const std::vector<DenseLayer> layers = chain(widths);
  Network network(layers, kBatch);
  std::vector<float> parameters(parameter_count(layers));
  std::vector<float> gradient(parameters.size());
  std::vector<float> mean(parameters.size());
  std::vector<float> square(parameters.size(), 1e-6F);  // in place of a correction of the first steps
  initialise(layers, 1, parameters.data());
  std::vector<std::uint8_t> labels(kBatch);
  std::vector<std::uint32_t> rows = first_rows(kBatch);
  for (; rows.back() < data.train->rows(); std::ranges::for_each(rows, [](auto& row) { row += kBatch; })) {
    GRADFS_CHECK(data.train->gather(rows, network.batch(), labels).has_value());
    network.gradient(parameters.data(), labels, 1.0F / kBatch, false, gradient.data());
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      mean[i] += 0.1F * (gradient[i] - mean[i]);
      square[i] += 0.01F * (gradient[i] * gradient[i] - square[i]);
      parameters[i] -= 0.003F * mean[i] / (std::sqrt(square[i]) + 1e-6F);
    }
  }
  std::size_t right = 0;
  for (rows = first_rows(kBatch); rows.back() < data.test->rows();
       std::ranges::for_each(rows, [](auto& row) { row += kBatch; })) {
    GRADFS_CHECK(data.test->gather(rows, network.batch(), labels).has_value());
    right += network.count_correct(parameters.data(), labels);
  }
  return static_cast<double>(right) / static_cast<double>(data.test->rows() / kBatch * kBatch);
}

TEST(Synthetic, ANetworkLearnsWhatALinearModelCannot) {
  const Dataset data = generate("higgs", 20'000, 1);
  EXPECT_LT(accuracy_of({28, 2}, data), 0.87);
  EXPECT_GT(accuracy_of({28, 64, 2}, data), 0.89);
}

}  // namespace
}  // namespace gradfs::trainer
