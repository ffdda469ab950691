#include "trainer/plan.h"

#include <gtest/gtest.h>

#include <ctime>

#include "tests/trainer/local_architecture.h"
#include "trainer/durations.h"
#include "trainer/usage.h"

namespace gradfs::trainer {
namespace {

PlanInput input_of(const std::vector<std::size_t>& widths, std::size_t batch_size, std::size_t workers) {
  PlanInput input;
  input.layers = chain(widths);
  input.batch_size = batch_size;
  input.workers = workers;
  return input;
}

TEST(Plan, FormulaIsThatOfTheTalk) {
  // 1,863,690 parameters; 784 + 1024 + 1024 + 10 units.
  EXPECT_EQ(talk_formula_bytes(input_of({784, 1024, 1024, 10}, 128, 2)),
            (1'863'690u + 128u * 2'842u) * 18u * 2u);
  EXPECT_EQ(talk_formula_bytes(input_of({3, 2}, 1, 1)), (8u + 5u) * 18u);
}

TEST(Plan, EstimateGrowsWithWhatThereIs) {
  const std::uint64_t one = estimate_bytes(input_of({784, 1024, 1024, 10}, 128, 1));
  const std::uint64_t model = std::uint64_t{1'863'690} * 4;
  EXPECT_GT(one, 4 * model);  // parameters, two states, a gradient
  EXPECT_LT(one, 4 * model + (16 << 20));
  EXPECT_GT(estimate_bytes(input_of({784, 1024, 1024, 10}, 128, 2)), one + model);
  PlanInput with_buffers = input_of({784, 1024, 1024, 10}, 128, 1);
  with_buffers.copies_in_all = 3;
  EXPECT_EQ(estimate_bytes(with_buffers), one + 3 * model);
}

TEST(Plan, AWorkerIsMeasured) {
  const PlanInput small = input_of({500, 1000, 1000, 10}, 16, 1);
  const std::uint64_t model = (std::uint64_t{501} * 1000 + 1001 * 1000 + 1001 * 10) * 4;
  const std::uint64_t measured = measure_worker_bytes(small).value();
  EXPECT_GE(measured, model);  // its gradient
  PlanInput large = small;
  large.batch_size = 4096;
  const std::uint64_t activations = std::uint64_t{4096 - 16} * (500 + 1000 + 1000 + 10) * 4;
  EXPECT_GE(measure_worker_bytes(large).value(), measured + activations);
}

// What a sanitizer takes for itself, for each byte of a program's.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kOverhead = 8;
#elif defined(__has_feature)
constexpr double kOverhead = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ? 8 : 0;
#else
constexpr double kOverhead = 0;
#endif

TEST(Plan, EstimateOfAWorkerIsNearWhatItTakes) {
  PlanInput input = input_of({784, 2048, 2048, 10}, 512, 1);
  const std::uint64_t one = estimate_bytes(input);
  const auto measured = static_cast<double>(measure_worker_bytes(input).value());
  input.workers = 2;
  const auto estimate = static_cast<double>(estimate_bytes(input) - one);
  EXPECT_GT(estimate * (1 + kOverhead), 0.8 * measured);
  EXPECT_LT(estimate, 1.25 * measured + (8 << 20));
  RecordProperty("measured_bytes", std::to_string(measured));
  RecordProperty("estimate_bytes", std::to_string(estimate));
}

TEST(Plan, WarnsOnlyOfWhatDoesNotFit) {
  EXPECT_FALSE(memory_warning(100, 100));
  const std::optional<std::string> warning = memory_warning(std::uint64_t{3} << 30, std::uint64_t{1} << 30);
  ASSERT_TRUE(warning);
  EXPECT_EQ(
      *warning,
      "this run needs about 3.0 GiB of memory, and 1.0 GiB are free: use fewer workers or a smaller batch");
  EXPECT_GT(available_bytes(), std::uint64_t{16} << 20);
}

TEST(Durations, GiveTheNearestRank) {
  Durations none;
  EXPECT_FALSE(none.quantile_ms(0.5));
  Durations times;
  for (int i = 100; i >= 1; --i) times.add(i * kMillisecond_ns);
  EXPECT_EQ(times.count(), 100u);
  EXPECT_DOUBLE_EQ(*times.quantile_ms(0.5), 50);
  EXPECT_DOUBLE_EQ(*times.quantile_ms(0.99), 99);
  EXPECT_DOUBLE_EQ(*times.quantile_ms(0), 1);
  EXPECT_DOUBLE_EQ(*times.quantile_ms(1), 100);
}

TEST(Durations, KeepASampleOfMany) {
  Durations times;
  constexpr std::int64_t kMany = 3 * static_cast<std::int64_t>(Durations::kKept);
  for (std::int64_t i = 0; i < kMany; ++i) times.add(i * kMillisecond_ns);
  EXPECT_EQ(times.count(), static_cast<std::uint64_t>(kMany));
  EXPECT_NEAR(*times.quantile_ms(0.5) / static_cast<double>(kMany), 0.5, 0.01);
  EXPECT_NEAR(*times.quantile_ms(0.99) / static_cast<double>(kMany), 0.99, 0.005);
}

TEST(Usage, SeesThisProcessAndNoOther) {
  const std::int64_t before_ns = cpu_time_ns(::getpid()).value();
  const std::clock_t begin =
      std::clock();  // processor time, not wall time: the machine may be busy with others
  while (std::clock() - begin < CLOCKS_PER_SEC / 5) {
  }
  EXPECT_GE(cpu_time_ns(::getpid()).value(), before_ns + 100 * kMillisecond_ns);
  EXPECT_FALSE(cpu_time_ns(-1));
  EXPECT_FALSE(proportional_bytes(0x7fffffff));
}

TEST(Usage, MeterKeepsThePeak) {
  UsageMeter meter({});
  std::vector<char> memory(std::size_t{64} << 20, 'x');
  asm volatile("" : : "r"(memory.data()) : "memory");  // or the compiler would leave it out
  meter.sample({::getpid()}, 0);
  const std::uint64_t peak = meter.peak_bytes();
  EXPECT_GT(peak, memory.size());
  meter.sample({::getpid()}, memory.size());
  EXPECT_EQ(meter.peak_bytes(), peak);
  EXPECT_EQ(meter.server_cpu_seconds(), 0);
}

}  // namespace
}  // namespace gradfs::trainer
