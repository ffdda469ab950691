// The whole trainer: workers, processes, signals.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "tests/trainer/model_directory.h"
#include "trainer/coprocessor.h"
#include "trainer/evaluator.h"
#include "trainer/supervisor.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kFeatures = 20;
constexpr std::size_t kClasses = 4;

// Noisy patterns, one for each class, that no single feature tells apart.
std::unique_ptr<Samples> make_samples(std::size_t rows, std::uint64_t seed) {
  std::vector<std::vector<std::uint8_t>> patterns;
  SeededRandom shape(1);
  for (std::size_t c = 0; c < kClasses; ++c) {
    patterns.emplace_back(kFeatures);
    for (std::uint8_t& value : patterns.back()) value = shape.next_u64() % 2 == 0 ? 60 : 190;
  }
  SeededRandom random(seed);
  std::vector<std::uint8_t> pixels;
  std::vector<std::uint8_t> labels;
  for (std::size_t row = 0; row < rows; ++row) {
    labels.push_back(static_cast<std::uint8_t>(row % kClasses));
    for (const std::uint8_t value : patterns[labels.back()]) {
      pixels.push_back(static_cast<std::uint8_t>(value - 60 + random.next_u64() % 121));
    }
  }
  return std::move(make_byte_samples(std::move(pixels), kFeatures, std::move(labels)).value());
}

Dataset make_dataset(std::size_t rows = 1200) {
  return {"synthetic", make_samples(rows, 2), make_samples(400, 3)};
}

RunOptions make_options(std::size_t workers, std::size_t epochs) {
  RunOptions options;
  options.workers = workers;
  options.partitions = workers;
  options.worker.batch_size = 32;
  options.epochs = epochs;
  return options;
}

RunOutcome train_or_die(const Dataset& dataset, Architecture& architecture, const RunOptions& options) {
  const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
  Result<RunOutcome> outcome = train(dataset, architecture, *control, options);
  EXPECT_TRUE(outcome) << outcome.error().message();
  GRADFS_CHECK(outcome.has_value());
  return std::move(outcome.value());
}

TEST(Training, TwoProcessesLearnTogether) {
  const Dataset dataset = make_dataset();
  LocalArchitecture architecture({kFeatures, 32, kClasses}, 3e-3f, 1);
  const RunOutcome outcome = train_or_die(dataset, architecture, make_options(2, 8));
  const Report& report = outcome.report;
  EXPECT_FALSE(outcome.failure);
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_GE(report.test_accuracy, 0.97);
  // 600 rows a worker in batches of 32: 19 pushes an epoch.
  EXPECT_EQ(report.gradients_applied, 2u * 8 * 19);
  EXPECT_EQ(report.model_version, report.gradients_applied);
  EXPECT_EQ(report.samples, 8u * 1200);
  EXPECT_DOUBLE_EQ(report.epochs_completed, 8);
  EXPECT_GT(report.train_seconds, 0);
  EXPECT_LT(report.train_loss, 0.4);
  EXPECT_EQ(report.layers, (std::vector<std::uint64_t>{kFeatures, 32, kClasses}));
  ASSERT_FALSE(report.history.empty());
  EXPECT_DOUBLE_EQ(report.history.back().seconds, report.train_seconds);
  EXPECT_TRUE(report.workers_lost.empty());
}

// One worker, so that nothing depends on who comes first.
std::vector<float> parameters_after(const WorkerOptions& options, bool live) {
  const Dataset dataset = make_dataset();
  LocalArchitecture architecture({kFeatures, 16, kClasses}, 1e-3f, 1, live);
  RunOptions run = make_options(1, 2);
  run.worker = options;
  train_or_die(dataset, architecture, run);
  std::vector<float> parameters(architecture.parameters());
  GRADFS_CHECK(architecture.observer().fetch(parameters).has_value());
  return parameters;
}

TEST(Training, IsReproducibleAndTheMapIsAsGoodAsACopy) {
  const std::vector<float> first = parameters_after({.batch_size = 32}, true);
  EXPECT_EQ(parameters_after({.batch_size = 32}, true), first);
  EXPECT_EQ(parameters_after({.batch_size = 32}, false), first);
}

TEST(Training, FourBatchesAPushAreOneOfFourTimesTheSize) {
  const std::vector<float> accumulated = parameters_after({.batch_size = 8, .batches_per_push = 4}, true);
  const std::vector<float> whole = parameters_after({.batch_size = 32}, true);
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(accumulated[i], whole[i], 1e-4) << i;
}

TEST(Worker, KeepsParametersBetweenFetches) {
  class Counting final : public Exchange {
   public:
    Counting(std::size_t count, int& fetches) : parameters_(count), gradient_(count), fetches_(fetches) {}
    Result<std::span<const float>> current() override {
      ++fetches_;
      return parameters_;
    }
    [[nodiscard]] std::uint64_t bytes_moved() const override { return 0; }
    std::span<float> gradient() override { return gradient_; }
    Result<PushOutcome> push(std::uint64_t, double) override { return PushOutcome::kDropped; }

   private:
    std::vector<float> parameters_;
    std::vector<float> gradient_;
    int& fetches_;
  };
  const std::unique_ptr<Samples> samples = make_samples(40, 1);
  const std::vector<DenseLayer> layers = chain({kFeatures, kClasses});
  int fetches = 0;
  Rows rows(40);
  Worker worker(*samples, layers, BatchPlan({rows}, 4, 1, 1, 1), {.batch_size = 4, .pushes_per_fetch = 3},
                std::make_unique<Counting>(parameter_count(layers), fetches));
  for (std::uint64_t step = 1; step <= 10; ++step) {
    ASSERT_TRUE(worker.compute().value());
    const StepReport report = worker.push().value();
    EXPECT_EQ(report.step, step);
    EXPECT_EQ(report.samples, 4u);
    EXPECT_EQ(report.outcome, PushOutcome::kDropped);
    EXPECT_NEAR(report.loss_sum, 4 * std::log(kClasses), 1e-4);
  }
  EXPECT_FALSE(worker.compute().value());
  EXPECT_EQ(fetches, 4);
}

TEST(Training, StopsAtItsTarget) {
  const Dataset dataset = make_dataset();
  LocalArchitecture architecture({kFeatures, 32, kClasses}, 3e-3f, 1);
  RunOptions options = make_options(2, 1'000'000);
  options.target_accuracy = 0.9;
  const RunOutcome outcome = train_or_die(dataset, architecture, options);
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_FALSE(outcome.failure);
  EXPECT_FALSE(outcome.report.interrupted);
  EXPECT_TRUE(seconds_to(outcome.report.history, 0.9));
}

TEST(Training, StopsInTime) {
  const Dataset dataset = make_dataset();
  LocalArchitecture architecture({kFeatures, 32, kClasses}, 1e-3f, 1);
  RunOptions options = make_options(2, 0);
  options.seconds_max = 0.3;
  const RunOutcome outcome = train_or_die(dataset, architecture, options);
  EXPECT_LT(outcome.report.train_seconds, 5);
  EXPECT_GT(outcome.report.gradients_applied, 0u);
  EXPECT_FALSE(outcome.report.epochs);
}

TEST(Training, RefusesAModelThatDoesNotFit) {
  const Dataset dataset = make_dataset();
  const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
  LocalArchitecture narrow({kFeatures - 1, kClasses}, 1e-3f, 1);
  EXPECT_NE(train(dataset, narrow, *control, make_options(1, 1)).error().message().find("a sample has 20"),
            std::string::npos);
  LocalArchitecture few({kFeatures, kClasses - 1}, 1e-3f, 1);
  EXPECT_NE(train(dataset, few, *control, make_options(1, 1)).error().message().find("the data set has 4"),
            std::string::npos);
}

// Runs over a directory of ordinary files; body is called in a thread-free process of its own once training
// goes on.
class InADirectory : public testing::Test {
 protected:
  std::unique_ptr<Architecture> open(SharedControl& control) {
    ExchangeOptions options;
    options.model_directory = directory_.path();
    options.run = "r";
    options.control = &*control;
    auto made = open_coprocessor(options);
    GRADFS_CHECK(made.has_value());
    return std::move(made.value());
  }

  // A process that waits until a slot shows that training has begun, then finds the worker that holds it open
  // and calls act with its pid and the supervisor's.
  template <class Act>
  pid_t meanwhile(Act act) {
    const pid_t supervisor = ::getpid();
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    for (int i = 0; i < 2000 && directory_.files_in("slots") < 2; ++i) ::usleep(5000);
    ::usleep(300'000);
    act(child_named(supervisor, "train-w0"), supervisor);
    ::_exit(0);
  }

  static pid_t child_named(pid_t parent, const std::string& name) {
    const std::string id = std::to_string(parent);
    const std::string children = read_text_file("/proc/" + id + "/task/" + id + "/children").value();
    std::istringstream words(children);
    for (pid_t pid = 0; words >> pid;) {
      if (read_text_file("/proc/" + std::to_string(pid) + "/comm").value() == name + "\n") return pid;
    }
    return -1;
  }

  ModelDirectory directory_{{kFeatures, 16, kClasses}};
  Dataset dataset_ = make_dataset();
};

TEST_F(InADirectory, CountsWhatWasAcknowledged) {
  const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
  const auto architecture = open(*control);
  const auto outcome = train(dataset_, *architecture, *control, make_options(2, 3));
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome.value().report.gradients_applied, 2u * 3 * 19);
  EXPECT_EQ(outcome.value().report.model_version, 42u);
  EXPECT_EQ(outcome.value().report.optimizer, "adam");
  EXPECT_EQ(directory_.files_in("slots"), 0u);
}

TEST_F(InADirectory, AKilledWorkerLeavesTheOthersAtWork) {
  const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
  const auto architecture = open(*control);
  RunOptions options = make_options(2, 0);
  options.seconds_max = 2;
  const pid_t killer = meanwhile([](pid_t worker, pid_t) { ::kill(worker, SIGKILL); });
  const auto outcome = train(dataset_, *architecture, *control, options);
  ::waitpid(killer, nullptr, 0);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome.value().report.workers_lost, std::vector<std::uint64_t>{0});
  EXPECT_FALSE(outcome.value().failure);
  EXPECT_GT(outcome.value().report.train_seconds, 1.5);
  EXPECT_EQ(directory_.files_in("slots"), 0u);
}

TEST_F(InADirectory, AnInterruptEndsWithAReport) {
  const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
  const auto architecture = open(*control);
  const pid_t interrupter = meanwhile([](pid_t worker, pid_t supervisor) {
    ::kill(worker, SIGINT);  // as a terminal would: to all of them
    ::kill(supervisor, SIGINT);
  });
  const auto outcome = train(dataset_, *architecture, *control, make_options(2, 1'000'000));
  ::waitpid(interrupter, nullptr, 0);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome.value().signal, SIGINT);
  EXPECT_TRUE(outcome.value().report.interrupted);
  EXPECT_TRUE(outcome.value().report.workers_lost.empty());
  EXPECT_GT(outcome.value().report.gradients_applied, 0u);
  EXPECT_EQ(directory_.files_in("slots"), 0u);
}

TEST_F(InADirectory, AWorkerThatCannotBeginEndsTheRun) {
  const std::unique_ptr<SharedControl> control = std::move(SharedControl::make().value());
  const auto architecture = open(*control);
  std::filesystem::remove(directory_.path() + "/slots");
  const auto outcome = train(dataset_, *architecture, *control, make_options(2, 1));
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message().find("worker "), std::string::npos);
  EXPECT_NE(outcome.error().message().find("slots/r-w"), std::string::npos);
}

}  // namespace
}  // namespace gradfs::trainer
