// gradfs-train: trains a model that lies in gradfs, by nothing but files below --model; or, to compare, by
// one of the other architectures.
#include <sys/random.h>

#include <cmath>
#include <csignal>
#include <cstdio>

#include "fs/base/clock.h"
#include "fs/base/program.h"
#include "trainer/peers/architectures.h"
#include "trainer/program/arguments.h"
#include "trainer/program/planning.h"
#include "trainer/report.h"
#include "trainer/supervisor.h"

namespace gradfs::trainer {
namespace {

// A name that no other run has: the model counts a run's steps once.
Result<std::string> make_run_name(const std::string& dataset) {
  std::uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != sizeof bits) return errno_error("getrandom");
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(bits));
  return dataset + "-" + text;
}

std::string grouped(double value) {
  std::string digits = std::to_string(std::llround(value));
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}

void print_summary(const Report& report, const std::string& path) {
  std::printf("test accuracy %.2f %% after %.2f epochs in %.1f s: %s samples/s, %s gradients applied",
              100 * report.test_accuracy, report.epochs_completed, report.train_seconds,
              grouped(report.samples_per_second).c_str(),
              grouped(static_cast<double>(report.gradients_applied)).c_str());
  if (report.gradients_refused > 0) {
    std::printf(", %s refused", grouped(static_cast<double>(report.gradients_refused)).c_str());
  }
  if (report.model_version) std::printf(", model version %s", std::to_string(*report.model_version).c_str());
  if (report.exchange.median_ms) std::printf("; an exchange takes %.2f ms", *report.exchange.median_ms);
  std::printf("\nreport: %s\n", path.c_str());
}

void tell(const std::string& line) { std::fprintf(stderr, "%s: %s\n", kProgram, line.c_str()); }

// The exit status, or the error that ended it before anything was trained.
Result<int> run(const Arguments& arguments, std::vector<std::string> command) {
  GRADFS_TRYV(check_report_path(arguments.report));
  GRADFS_TRY(std::unique_ptr<SharedControl> control, SharedControl::make());
  GRADFS_TRY(std::string name, make_run_name(arguments.dataset.name));
  ExchangeOptions exchange = exchange_options(arguments, name, *control);
  exchange.arguments.assign(command.begin() + 1, command.end());
  GRADFS_TRY(std::unique_ptr<Architecture> architecture, make_architecture(arguments.architecture, exchange));
  const std::int64_t load_began_ns = real_now_ns();
  GRADFS_TRY(Dataset dataset, load_dataset(arguments.dataset));
  const std::int64_t load_ns = real_now_ns() - load_began_ns;
  RunOptions options = run_options(arguments);
  GRADFS_TRY(options.worker.look_ahead, look_ahead_of(arguments, *architecture));
  if (options.partitions < options.workers) {
    tell(std::to_string(options.workers - options.partitions) + " of " + std::to_string(options.workers) +
         " workers have nothing to do: there are only " + std::to_string(options.partitions) + " partitions");
  }
  if (const std::optional<std::string> warning = warning_before(arguments, *architecture)) tell(*warning);
  GRADFS_TRY(RunOutcome outcome, train(dataset, *architecture, *control, options));
  outcome.report.run = name;
  outcome.report.push = arguments.architecture == "coprocessor" ? arguments.push : "";
  outcome.report.load_seconds = static_cast<double>(load_ns) / kSecond_ns;
  outcome.report.command = std::move(command);
  GRADFS_TRYV(write_report(outcome.report, arguments.report));
  print_summary(outcome.report, arguments.report);
  if (outcome.failure) return *outcome.failure;
  return outcome.signal == 0 ? 0 : 128 + outcome.signal;
}

int parse_and_run(int argc, char** argv) {
  const ParsedArguments parsed = parse_arguments(argc, argv);
  if (!parsed.arguments) return parsed.status;
  ::signal(SIGPIPE, SIG_IGN);
  const Result<int> status =
      parsed.arguments->plan ? print_plan(*parsed.arguments) : run(*parsed.arguments, {argv, argv + argc});
  if (!status) return print_error(kProgram, status.error());
  if (std::fflush(stdout) != 0) return print_error(kProgram, errno_error("stdout"));
  return status.value();
}

}  // namespace
}  // namespace gradfs::trainer

int main(int argc, char** argv) { return gradfs::trainer::parse_and_run(argc, argv); }
