// The architectures that take the step themselves, over a directory of ordinary files: with the same kernels
// and the same order of the data, where the model lies makes no difference to its bits.
#include "trainer/peers/architectures.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "tests/trainer/model_directory.h"
#include "trainer/model_file.h"
#include "trainer/supervisor.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kFeatures = 12;
constexpr std::size_t kClasses = 3;
const std::vector<std::size_t> kWidths = {kFeatures, 40, kClasses};

// Rows of random values; the label says which third of them has the largest sum. A row whose number is in
// `broken` has a NaN.
class RandomSamples final : public Samples {
 public:
  RandomSamples(std::size_t rows, std::uint64_t seed, std::size_t broken_every = 0) {
    SeededRandom random(seed);
    for (std::size_t row = 0; row < rows; ++row) {
      std::array<float, kClasses> sums{};
      for (std::size_t i = 0; i < kFeatures; ++i) {
        features_.push_back(static_cast<float>(random.next_u64() >> 40) / 0x1p24f);
        sums[i % kClasses] += features_.back();
      }
      labels_.push_back(static_cast<std::uint8_t>(std::ranges::max_element(sums) - sums.begin()));
      if (broken_every > 0 && row % broken_every == 0) {
        features_[row * kFeatures] = std::numeric_limits<float>::quiet_NaN();
      }
    }
  }
  [[nodiscard]] std::size_t rows() const noexcept override { return labels_.size(); }
  [[nodiscard]] std::size_t features() const noexcept override { return kFeatures; }
  [[nodiscard]] std::size_t classes() const noexcept override { return kClasses; }
  [[nodiscard]] Result<void> gather(std::span<const std::uint32_t> rows, std::span<float> features,
                                    std::span<std::uint8_t> labels) const override {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(features_.begin() + static_cast<std::ptrdiff_t>(rows[i] * kFeatures), kFeatures,
                  features.begin() + static_cast<std::ptrdiff_t>(i * kFeatures));
      labels[i] = labels_[rows[i]];
    }
    return ok();
  }

 private:
  std::vector<float> features_;
  std::vector<std::uint8_t> labels_;
};

Dataset make_dataset(std::size_t broken_every = 0) {
  return {"random", std::make_unique<RandomSamples>(600, 1, broken_every),
          std::make_unique<RandomSamples>(200, 2)};
}

RunOptions make_options(std::size_t workers, std::size_t epochs) {
  RunOptions options;
  options.workers = workers;
  options.partitions = workers;
  options.worker.batch_size = 20;
  options.epochs = epochs;
  return options;
}

struct Ran {
  RunOutcome outcome;
  std::vector<std::uint32_t> bits;  // of the parameters that the directory holds at the end
};

class Architectures : public testing::Test {
 protected:
  static Result<Ran> run(const std::string& name, const RunOptions& options, const Dataset& dataset,
                         const std::optional<std::string>& optimizer = "adam") {
    const ModelDirectory directory(kWidths);
    const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
    ExchangeOptions exchange;
    exchange.model_directory = directory.path();
    exchange.run = "r";
    exchange.workers = options.workers;
    exchange.optimizer = optimizer;
    exchange.learning_rate = 0.01;
    exchange.control = &**control;
    GRADFS_TRY(const std::unique_ptr<Architecture> architecture, make_architecture(name, exchange));
    Ran ran;
    GRADFS_TRY(ran.outcome, train(dataset, *architecture, *control, options));
    GRADFS_TRY(const ModelFile file, ModelFile::open(directory.path()));
    for (const float value : file.parameters()) ran.bits.push_back(std::bit_cast<std::uint32_t>(value));
    EXPECT_EQ(directory.files_in("gradients"), 0u) << name;
    for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
      EXPECT_NE(entry.path().extension(), ".tmp") << name;
    }
    return ran;
  }

  static Ran run_or_die(const std::string& name, const RunOptions& options, const Dataset& dataset,
                        const std::optional<std::string>& optimizer = "adam") {
    Result<Ran> ran = run(name, options, dataset, optimizer);
    EXPECT_TRUE(ran) << name << ": " << ran.error().message();
    GRADFS_CHECK(ran.has_value());
    EXPECT_FALSE(ran.value().outcome.failure) << name << ": " << ran.value().outcome.failure->message();
    return std::move(ran.value());
  }
};

TEST_F(Architectures, WithOneWorkerAllGiveTheSameBits) {
  const Dataset dataset = make_dataset();
  for (const char* optimizer : {"sgd", "momentum", "adam", "lamb"}) {
    const Ran reference = run_or_die("local", make_options(1, 3), dataset, optimizer);
    EXPECT_EQ(reference.outcome.report.gradients_applied, 90u);
    EXPECT_EQ(reference.outcome.report.model_version, 90u);
    EXPECT_EQ(reference.outcome.report.optimizer, optimizer);
    for (const char* name : {"broadcast", "storage", "paramserver"}) {
      const Ran ran = run_or_die(name, make_options(1, 3), dataset, optimizer);
      EXPECT_EQ(ran.bits, reference.bits) << name << " with " << optimizer;
      EXPECT_EQ(ran.outcome.report.gradients_applied, 90u) << name;
    }
  }
}

TEST_F(Architectures, ADriversMeanIsTheSameOverSocketsAndFiles) {
  const Dataset dataset = make_dataset();
  const Ran broadcast = run_or_die("broadcast", make_options(2, 3), dataset);
  const Ran storage = run_or_die("storage", make_options(2, 3), dataset);
  EXPECT_EQ(broadcast.bits, storage.bits);
  EXPECT_EQ(broadcast.outcome.report.gradients_applied, 90u) << "a mean of two counts two";
  EXPECT_EQ(broadcast.outcome.report.model_version, 45u);
  EXPECT_EQ(storage.outcome.report.model_version, 45u);
}

TEST_F(Architectures, EachLearnsWithThreeWorkers) {
  const Dataset dataset = make_dataset();
  for (const char* name : {"broadcast", "storage", "paramserver"}) {
    const Ran ran = run_or_die(name, make_options(3, 12), dataset);
    // A third is chance. The asynchronous one jumps: with so large a rate, old gradients are far off.
    EXPECT_GT(ran.outcome.report.test_accuracy, 0.6) << name;
    EXPECT_EQ(ran.outcome.report.gradients_applied, 3u * 12 * 10) << name;
    EXPECT_EQ(ran.outcome.report.samples, 12u * 600) << name;
  }
}

TEST_F(Architectures, UnequalWorkersEndOneAfterTheOther) {
  const Dataset dataset = make_dataset();
  RunOptions options = make_options(2, 1);
  options.partitions = 3;  // two for the first worker
  for (const char* name : {"broadcast", "storage", "paramserver"}) {
    const Ran ran = run_or_die(name, options, dataset);
    EXPECT_EQ(ran.outcome.report.gradients_applied, 30u) << name;
    EXPECT_TRUE(ran.outcome.report.workers_lost.empty()) << name;
  }
}

TEST_F(Architectures, ReportWhatAnExchangeCosts) {
  const Dataset dataset = make_dataset();
  const std::uint64_t model_bytes = 4 * (kFeatures * 40 + 40 + 40 * kClasses + kClasses);
  for (const char* name : {"broadcast", "storage", "paramserver", "local"}) {
    const Report report = run_or_die(name, make_options(1, 1), dataset).outcome.report;
    ASSERT_TRUE(report.exchange.median_ms && report.compute.median_ms) << name;
    EXPECT_GT(*report.exchange.median_ms, 0) << name;
    EXPECT_GE(*report.exchange.p99_ms, *report.exchange.median_ms) << name;
    EXPECT_GT(report.cpu_seconds, 0) << name;
    EXPECT_GT(report.peak_memory_bytes, model_bytes) << name;
    const std::uint64_t per_step = name == std::string("local") ? 0 : 2 * model_bytes;
    EXPECT_GE(report.bytes_moved, 30 * per_step) << name;
    EXPECT_LE(report.bytes_moved, 31 * per_step) << name << ": the first model, and no more";
  }
}

TEST_F(Architectures, GradientsThatAreNotFiniteAreRefusedAndTheTrainingGoesOn) {
  const Dataset dataset = make_dataset(100);  // six broken rows of 600, in at most six of 30 batches
  for (const char* name : {"broadcast", "storage", "paramserver", "local"}) {
    const std::size_t workers = name == std::string("local") ? 1 : 2;
    const Ran ran = run_or_die(name, make_options(workers, 2), dataset);
    const Report& report = ran.outcome.report;
    EXPECT_GE(report.gradients_refused, 2u) << name;
    EXPECT_LE(report.gradients_refused, 12u) << name;
    EXPECT_EQ(report.gradients_applied + report.gradients_refused, 60u) << name;
    EXPECT_TRUE(std::isfinite(report.train_loss)) << name;
    for (const std::uint32_t bits : ran.bits) {
      ASSERT_TRUE(std::isfinite(std::bit_cast<float>(bits))) << name;
    }
  }
}

TEST_F(Architectures, AWorkerWithoutWorkLeavesAtOnce) {
  const Dataset dataset = make_dataset();
  RunOptions options = make_options(3, 1);
  options.partitions = 2;
  for (const char* name : {"broadcast", "storage", "paramserver"}) {
    const Ran ran = run_or_die(name, options, dataset);
    EXPECT_EQ(ran.outcome.report.gradients_applied, 30u) << name;
    EXPECT_TRUE(ran.outcome.report.workers_lost.empty()) << name;
  }
}

TEST_F(Architectures, TheStragglerIsSlowAndOnlyTheSynchronousWaitForIt) {
  const Dataset dataset = make_dataset();
  RunOptions options = make_options(2, 0);
  options.seconds_max = 1.0;
  options.straggler_ns = 50 * kMillisecond_ns;
  const auto applied = [&](const char* name) {
    return run_or_die(name, options, dataset).outcome.report.gradients_applied;
  };
  EXPECT_LE(applied("broadcast"), 2u * 22);
  EXPECT_LE(applied("storage"), 2u * 22);
  EXPECT_GT(applied("paramserver"), 2u * 22);
}

TEST_F(Architectures, EvaluationsCanWaitForTheEnd) {
  const Dataset dataset = make_dataset();
  RunOptions options = make_options(1, 4);
  options.evaluate_every = 1;
  const Ran at_once = run_or_die("local", options, dataset);
  options.evaluate_later = true;
  const Ran later = run_or_die("local", options, dataset);
  EXPECT_EQ(later.bits, at_once.bits);
  ASSERT_FALSE(later.outcome.report.history.empty());
  EXPECT_EQ(later.outcome.report.history.back().test_accuracy,
            at_once.outcome.report.history.back().test_accuracy);
  EXPECT_GT(later.outcome.report.test_accuracy, 0.5);
}

TEST_F(Architectures, NamesThoseThatThereAre) {
  const auto made = make_architecture("telepathy", {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message(),
            "invalid: no architecture 'telepathy'; there are broadcast, storage, paramserver, coprocessor, "
            "allreduce, local");
}

TEST_F(Architectures, LocalHasOneWorker) {
  const auto ran = run("local", make_options(2, 1), make_dataset());
  ASSERT_FALSE(ran);
  EXPECT_NE(ran.error().message().find("--workers 1"), std::string::npos);
}

TEST_F(Architectures, RefuseAnOptimizerThatThereIsNot) {
  const auto ran = run("broadcast", make_options(1, 1), make_dataset(), "newton");
  ASSERT_FALSE(ran);
  EXPECT_NE(ran.error().message().find("no optimizer 'newton'; there are sgd, momentum"), std::string::npos);
}

}  // namespace
}  // namespace gradfs::trainer
