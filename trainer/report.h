// The report of a run: one JSON file, old or new but never half.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/result.h"
#include "trainer/network.h"

namespace gradfs::trainer {

// The accuracies whose times are reported, as they are written in the report.
inline constexpr const char* kMilestones[] = {"0.90", "0.95", "0.97", "0.975", "0.98"};

struct Evaluation {
  double seconds = 0;  // since the first batch, when the parameters were read
  double epoch = 0;    // completed until then, with a fraction
  double loss = 0;     // cross-entropy in training, over the last epoch's worth of samples
  double test_accuracy = 0;
};

// Of all steps of a run; none if there was no step.
struct Spread {
  std::optional<double> median_ms;
  std::optional<double> p99_ms;
};

struct Report {
  std::string dataset;
  std::string architecture;
  std::string run;
  std::vector<std::uint64_t> layers;  // widths: inputs, hidden layers, classes
  std::uint64_t parameters = 0;
  std::uint64_t workers = 0;
  std::uint64_t partitions = 0;
  std::optional<double> epochs;  // wanted; none if the run ended by time
  std::optional<double> seconds_max;
  double epochs_completed = 0;
  std::uint64_t batch_size = 0;
  std::uint64_t n_push = 1;
  std::uint64_t n_fetch = 1;
  double look_ahead = 0;
  double label_smoothing = 0;
  std::uint64_t seed = 0;
  std::string push;
  std::string kernels;
  std::string optimizer;
  double test_accuracy = 0;
  double train_loss = 0;
  double train_seconds = 0;  // from the first batch to the last update
  double load_seconds = 0;   // reading the data set, before
  double samples_per_second = 0;
  double updates_per_second = 0;  // gradients applied
  std::uint64_t samples = 0;
  std::uint64_t gradients_applied = 0;  // pushes of this run that the model has taken; a mean of k counts k
  std::uint64_t gradients_dropped = 0;  // pushes that its policy did not want
  std::uint64_t gradients_refused = 0;  // pushes that were not finite
  Spread exchange;  // gradient ready in memory, until every byte of an updated model can be read
  Spread compute;   // a gradient
  std::uint64_t bytes_moved = 0;        // gradients and parameters, once for each process that gets them
  double cpu_seconds = 0;               // of all processes of the run, the filesystem's servers included
  double server_cpu_seconds = 0;        // of the servers, if gradients or parameters go by files
  std::uint64_t peak_memory_bytes = 0;  // the same processes together; pages that they share count once
  std::optional<std::uint64_t> model_version;
  std::vector<std::uint64_t> workers_lost;  // numbers of those that ended before their work did
  bool interrupted = false;
  std::vector<Evaluation> history;
  std::vector<std::string> command;
};

// The time of the first evaluation at or above an accuracy; none if none was.
std::optional<double> seconds_to(const std::vector<Evaluation>& history, double accuracy);

std::vector<std::uint64_t> layer_widths(const std::vector<DenseLayer>& layers);

std::string report_json(const Report& report);

// Whether the report could be written there: to be asked before a long run.
Result<void> check_report_path(const std::string& path);
// Replaces the file; one that is not a regular file (a pipe, /dev/stdout) is written to as it is. Leaves
// nothing behind when it fails, as on a full disk.
Result<void> write_report(const Report& report, const std::string& path);

}  // namespace gradfs::trainer
