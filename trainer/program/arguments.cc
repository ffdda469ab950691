#include "trainer/program/arguments.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>

#include "fs/base/clock.h"
#include "trainer/peers/architectures.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kBatchMax = 1 << 20;
constexpr double kLookAheadMax = 10;
constexpr std::size_t kCountMax = 1'000'000'000;
constexpr double kStragglerMax_ms = 60'000;
constexpr int kUsage = 2;

// One line for wrong usage.
ParsedArguments refuse_usage(std::string line) {
  if (const std::size_t end = line.find('\n'); end != std::string::npos) line.resize(end);
  std::fprintf(stderr, "%s: %s; see %s --help\n", kProgram, line.c_str(), kProgram);
  return {std::nullopt, kUsage};
}

CLI::Validator counts(std::size_t most) { return CLI::Range(std::size_t{1}, most).description(""); }

void add_model_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "model directory (fsctl model create makes one)")
      ->type_name("DIR");
  app.add_option("--architecture", arguments.architecture,
                 "how workers reach the model: " + architecture_names())
      ->capture_default_str();
  app.add_option("--optimizer", arguments.optimizer,
                 "for all but coprocessor, whose descent.toml says it [descent.toml's, else adam]");
  app.add_option("--lr", arguments.learning_rate, "learning rate, likewise")->type_name("RATE");
  app.add_option("--push", arguments.push,
                 "coprocessor: slot: one file, fsync pushes; file: a new file, close pushes")
      ->capture_default_str()
      ->check(CLI::IsMember({"slot", "file"}));
  app.add_flag("--plan", arguments.plan, "print the memory that such a run needs, and train nothing");
  app.add_option("--layers", arguments.layers, "with --plan, instead of --model: the network's widths")
      ->delimiter(',')
      ->type_name("N,N,...");
}

void add_data_options(CLI::App& app, Arguments& arguments) {
  DatasetOptions& dataset = arguments.dataset;
  app.add_option("--dataset", dataset.name, "mnist, csv, npy (files); higgs, molecular (generated)")
      ->type_name("NAME");
  app.add_option("--data", dataset.directory, "directory of the data set's files")->type_name("DIR");
  app.add_option("--rows", dataset.rows, "generated data: rows for training [200000]")
      ->check(counts(0xffff'ffff));
  app.add_option("--test-rows", dataset.test_rows, "generated data: rows for testing [2000]")
      ->check(counts(0xffff'ffff));
  app.add_option("--data-seed", dataset.seed, "generated data: of the function to learn, and the rows")
      ->capture_default_str();
  app.add_option("--label", dataset.label,
                 "csv: the label's column, by name or number from 0 [\"label\", else 0]")
      ->type_name("COLUMN");
  app.add_option("--partitions", arguments.partitions,
                 "parts of the data, dealt to the workers in turn [workers]")
      ->check(counts(kCountMax));
}

void add_training_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--workers", arguments.workers, "worker processes")->check(counts(kWorkersMax));
  app.add_option("--batch-size", arguments.batch_size, "samples in a batch")->check(counts(kBatchMax));
  CLI::Option* epochs = app.add_option("--epochs", arguments.epochs,
                                       "passes over the data; 1.5 ends in the middle of the second")
                            ->check(CLI::Range(1e-6, static_cast<double>(kCountMax)).description(""))
                            ->type_name("E");
  app.add_option("--max-seconds", arguments.seconds_max, "train for so long instead")
      ->check(CLI::PositiveNumber)
      ->type_name("S")
      ->excludes(epochs);
  app.add_option("--seed", arguments.seed, "of everything random")->capture_default_str();
  app.add_option("--n-push", arguments.n_push, "batches whose mean is pushed")
      ->capture_default_str()
      ->check(counts(kBatchMax));
  app.add_option("--n-fetch", arguments.n_fetch, "pushes for which parameters are kept")
      ->capture_default_str()
      ->check(counts(kCountMax));
  app.add_option("--label-smoothing", arguments.label_smoothing,
                 "share of each target spread over all classes")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("E");
  app.add_option(
         "--look-ahead", arguments.look_ahead,
         "coprocessor, paramserver: compute gradients where the parameters will be, K times as far on as\n"
         "they moved since the last push [1 if several workers train]")
      ->check(CLI::Range(0.0, kLookAheadMax).description(""))
      ->type_name("K");
  app.add_option("--straggler-ms", arguments.straggler_ms,
                 "the last worker sleeps so long after each gradient")
      ->check(CLI::Range(0.0, kStragglerMax_ms).description(""))
      ->type_name("MS");
}

void add_report_options(CLI::App& app, Arguments& arguments) {
  CLI::Option* target =
      app.add_option("--target-accuracy", arguments.target_accuracy, "end when the test accuracy is so high")
          ->check(CLI::Range(0.0, 1.0).description(""))
          ->type_name("A");
  app.add_option("--evaluate-every", arguments.evaluate_every,
                 "epochs between two looks at the test accuracy")
      ->check(CLI::PositiveNumber)
      ->type_name("E");
  app.add_flag("--evaluate-later", arguments.evaluate_later,
               "keep the parameters at each look, and find out the accuracy after the training")
      ->excludes(target);
  app.add_option("--report", arguments.report, "where to write the report (JSON)")->type_name("FILE");
}

// What is missing or does not fit together; "" if nothing.
std::string find_fault(const Arguments& arguments) {
  const auto names = ", " + architecture_names() + ",";
  if (names.find(", " + arguments.architecture + ",") == std::string::npos) {
    return "no architecture '" + arguments.architecture + "'; there are " + architecture_names();
  }
  if (arguments.workers == 0) return "--workers is required";
  if (arguments.architecture == "local" && arguments.workers != 1) {
    return "the architecture local has one worker: --workers 1";
  }
  if (arguments.look_ahead && !std::isfinite(*arguments.look_ahead)) return "--look-ahead must be a number";
  if (arguments.batch_size == 0) return "--batch-size is required";
  if (arguments.learning_rate &&
      !(std::isfinite(*arguments.learning_rate) && *arguments.learning_rate >= 0)) {
    return "--lr must be a finite number of at least 0";
  }
  if (arguments.plan) {
    return arguments.model.empty() && arguments.layers.size() < 2 ? "--plan needs --model or --layers" : "";
  }
  if (arguments.model.empty()) return "--model is required";
  if (arguments.dataset.name.empty()) return "--dataset is required";
  if (arguments.dataset.directory.empty() && dataset_needs_directory(arguments.dataset.name)) {
    return "--data is required for " + arguments.dataset.name;
  }
  if (arguments.report.empty()) return "--report is required";
  if (!std::isfinite(arguments.epochs)) return "--epochs must be a number";
  if (arguments.epochs == 0 && arguments.seconds_max == 0) return "--epochs or --max-seconds is needed";
  return "";
}

}  // namespace

ParsedArguments parse_arguments(int argc, char** argv) {
  CLI::App app{
      "gradfs-train: trains a fully connected network that lies in gradfs, and compares that with other "
      "places\n"
      "to keep it. It needs a model directory (fsctl model create) and touches nothing but files below it."};
  app.set_version_flag("--version", GRADFS_VERSION);
  Arguments arguments;
  add_model_options(app, arguments);
  add_data_options(app, arguments);
  add_training_options(app, arguments);
  add_report_options(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return {std::nullopt, app.exit(wanted)};
  } catch (const CLI::ParseError& error) {
    return refuse_usage(error.what());
  }
  if (std::string fault = find_fault(arguments); !fault.empty()) return refuse_usage(std::move(fault));
  return {std::move(arguments), 0};
}

Result<double> look_ahead_of(const Arguments& arguments, const Architecture& architecture) {
  if (!architecture.is_asynchronous()) {
    if (!arguments.look_ahead || *arguments.look_ahead == 0) return 0.0;
    return Error(Errc::kInvalid, "--look-ahead is not for " + arguments.architecture +
                                     ": its gradients are never of older parameters");
  }
  const std::size_t partitions = arguments.partitions == 0 ? arguments.workers : arguments.partitions;
  return arguments.look_ahead.value_or(std::min(arguments.workers, partitions) > 1 ? 1.0 : 0.0);
}

RunOptions run_options(const Arguments& arguments) {
  RunOptions options;
  options.workers = arguments.workers;
  options.partitions = arguments.partitions == 0 ? arguments.workers : arguments.partitions;
  options.worker.batch_size = arguments.batch_size;
  options.worker.batches_per_push = arguments.n_push;
  options.worker.pushes_per_fetch = arguments.n_fetch;
  options.worker.label_smoothing = static_cast<float>(arguments.label_smoothing);
  options.epochs = arguments.epochs;
  if (arguments.seconds_max > 0) options.seconds_max = arguments.seconds_max;
  if (arguments.target_accuracy > 0) options.target_accuracy = arguments.target_accuracy;
  if (arguments.evaluate_every > 0) options.evaluate_every = arguments.evaluate_every;
  options.evaluate_later = arguments.evaluate_later;
  options.straggler_ns = std::llround(arguments.straggler_ms * static_cast<double>(kMillisecond_ns));
  options.seed = arguments.seed;
  options.terminal = ::isatty(STDOUT_FILENO) == 1;
  return options;
}

ExchangeOptions exchange_options(const Arguments& arguments, const std::string& run,
                                 const SharedControl& control) {
  ExchangeOptions options;
  options.model_directory = arguments.model;
  options.run = run;
  options.push = arguments.push == "file" ? PushKind::kFile : PushKind::kSlot;
  options.workers = arguments.workers;
  options.optimizer = arguments.optimizer;
  options.learning_rate = arguments.learning_rate;
  options.control = &*control;
  options.control_fd = control.fd();
  return options;
}

}  // namespace gradfs::trainer
