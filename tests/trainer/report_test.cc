#include "trainer/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "fs/base/fd.h"
#include "tests/trainer/local_architecture.h"
#include "trainer/progress.h"

namespace gradfs::trainer {
namespace {

Report example() {
  Report report;
  report.dataset = "mnist";
  report.architecture = "coprocessor";
  report.layers = layer_widths(chain({784, 32, 10}));
  report.parameters = 25450;
  report.workers = 2;
  report.epochs = 5;
  report.epochs_completed = 5;
  report.batch_size = 64;
  report.optimizer = "adam";
  report.test_accuracy = 0.976;
  report.train_seconds = 12.3456;
  report.samples_per_second = 24303.68;
  report.gradients_applied = 4690;
  report.model_version = 4690;
  report.history = {
      {1.5, 0.5, 0.4, 0.91}, {3.0, 1, 0.2, 0.949}, {6.0, 2, 0.1, 0.96}, {12.3456, 5, 0.05, 0.976}};
  report.command = {"gradfs-train", "--model", "/m"};
  return report;
}

TEST(Report, HasWhatItsReadersNeed) {
  const auto json = nlohmann::json::parse(report_json(example()));
  for (const char* key : {"dataset",
                          "architecture",
                          "layers",
                          "parameters",
                          "workers",
                          "epochs",
                          "batch_size",
                          "optimizer",
                          "test_accuracy",
                          "train_seconds",
                          "samples_per_second",
                          "gradients_applied",
                          "model_version",
                          "seconds_to_accuracy",
                          "seed",
                          "partitions",
                          "n_push",
                          "n_fetch",
                          "look_ahead",
                          "train_loss",
                          "command",
                          "epochs_completed",
                          "history"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["layers"], (nlohmann::json{784, 32, 10}));
  EXPECT_EQ(json["epochs"], 5);
  EXPECT_EQ(json["test_accuracy"], 0.976);
  EXPECT_EQ(json["train_seconds"], 12.346);
  EXPECT_EQ(json["seconds_to_accuracy"],
            (nlohmann::json{{"0.90", 1.5}, {"0.95", 6.0}, {"0.97", 12.346}, {"0.975", 12.346}}));
  EXPECT_EQ(json["history"].size(), 4u);
  EXPECT_EQ(json["history"][1]["test_accuracy"], 0.949);
}

TEST(Report, SaysNullForWhatIsNotKnown) {
  Report report = example();
  report.epochs = 1.5;
  EXPECT_EQ(nlohmann::json::parse(report_json(report))["epochs"], 1.5);
  report.epochs.reset();
  report.epochs_completed = 2.5;
  report.model_version.reset();
  report.train_loss = std::nan("");
  const auto json = nlohmann::json::parse(report_json(report));
  EXPECT_EQ(json["epochs"], 2.5);
  EXPECT_TRUE(json["model_version"].is_null());
  EXPECT_TRUE(json["train_loss"].is_null());
}

TEST(Report, IsReplacedWhole) {
  const std::string directory = testing::TempDir() + "gradfs-report-" + std::to_string(::getpid());
  std::filesystem::create_directory(directory);
  const std::string path = directory + "/report.json";
  ASSERT_TRUE(check_report_path(path));
  ASSERT_TRUE(write_report(example(), path));
  Report second = example();
  second.workers = 3;
  ASSERT_TRUE(write_report(second, path));
  EXPECT_EQ(nlohmann::json::parse(read_text_file(path).value())["workers"], 3);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory), {}), 1);
  std::filesystem::remove_all(directory);
}

TEST(Report, CannotBeWrittenIsOneLine) {
  const Result<void> missing = check_report_path("/nonexistent/report.json");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("/nonexistent"), std::string::npos);
  EXPECT_EQ(check_report_path("/tmp").error().code, Errc::kIsDirectory);
  const Result<void> full = write_report(example(), "/dev/full");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, Errc::kNoSpace);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST(LossWindow, ForgetsWhatIsOld) {
  LossWindow window(10);
  EXPECT_EQ(window.mean(), 0);
  window.add(5, 50);
  EXPECT_DOUBLE_EQ(window.mean(), 10);
  window.add(5, 5);
  window.add(5, 5);
  EXPECT_DOUBLE_EQ(window.mean(), 1);
  window.add(100, 300);
  EXPECT_DOUBLE_EQ(window.mean(), 3);
}

TEST(ProgressDisplay, FitsTheTerminal) {
  const ProgressDisplay::State state{.done = 0.5,
                                     .epoch = 2.5,
                                     .epochs = 5,
                                     .seconds = 10,
                                     .loss = 0.1234,
                                     .accuracy = 0.9712,
                                     .samples_per_second = 12345};
  EXPECT_EQ(ProgressDisplay::line(state),
            "  10.0 s  epoch 2.50 of 5  loss 0.1234  accuracy 97.12 %  12345 samples/s");
  const std::string bar = ProgressDisplay::bar(state, 120);
  EXPECT_NE(bar.find("[###############...............]  50 %"), std::string::npos) << bar;
  EXPECT_NE(bar.find("10 s left"), std::string::npos);
  for (std::size_t columns = 1; columns < 130; ++columns) {
    EXPECT_LT(ProgressDisplay::bar(state, columns).size(), columns) << columns;
  }
}

}  // namespace
}  // namespace gradfs::trainer
