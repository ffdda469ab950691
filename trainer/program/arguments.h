// The command line of gradfs-train, which gradfs-train-rank is given too.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "trainer/dataset.h"
#include "trainer/exchange.h"
#include "trainer/supervisor.h"

namespace gradfs::trainer {

inline constexpr const char* kProgram = "gradfs-train";

struct Arguments {
  std::string model;
  std::vector<std::size_t> layers;  // --plan without a model
  DatasetOptions dataset;
  std::string architecture = "coprocessor";
  std::string push = "slot";
  std::string report;
  std::size_t workers = 0;
  std::size_t partitions = 0;  // 0: as many as workers
  std::size_t batch_size = 0;
  std::optional<double> look_ahead;
  double epochs = 0;
  double seconds_max = 0;
  double target_accuracy = 0;
  double evaluate_every = 0;  // 0: the supervisor's choice
  bool evaluate_later = false;
  double straggler_ms = 0;
  std::size_t n_push = 1;
  std::size_t n_fetch = 1;
  // Without it a constant rate keeps the accuracy jumping by half a percent (MNIST, Adam at 1e-3, fifth
  // epoch: 96.8 to 98.3 %); with it, 98.3 to 98.6 %.
  double label_smoothing = 0.1;
  std::uint64_t seed = 1;
  std::optional<std::string> optimizer;
  std::optional<double> learning_rate;
  bool plan = false;
};

// What the command line says, or the exit status after help or an error line was printed.
struct ParsedArguments {
  std::optional<Arguments> arguments;
  int status = 0;
};
ParsedArguments parse_arguments(int argc, char** argv);

// The factor of LookAhead that holds for the run. kInvalid: the architecture has no use for it.
Result<double> look_ahead_of(const Arguments& arguments, const Architecture& architecture);
RunOptions run_options(const Arguments& arguments);
// run: the run's name.
ExchangeOptions exchange_options(const Arguments& arguments, const std::string& run,
                                 const SharedControl& control);

}  // namespace gradfs::trainer
