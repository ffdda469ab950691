// Supervisor: starts the processes of a run, watches them, measures accuracy, and tells what came of it.
#pragma once

#include <cstdint>
#include <optional>

#include "trainer/dataset.h"
#include "trainer/exchange.h"
#include "trainer/report.h"
#include "trainer/worker.h"

namespace gradfs::trainer {

struct RunOptions {
  std::size_t workers = 1;
  std::size_t partitions = 1;  // fewer than workers: the last workers have nothing to do
  WorkerOptions worker;
  double epochs = 0;  // passes over the data, not always whole; 0 for no end
  std::optional<double> seconds_max;
  std::optional<double> target_accuracy;  // ends the run when it is reached
  std::optional<double> evaluate_every;  // epochs between two looks at the accuracy; without, some are chosen
  bool evaluate_later = false;    // keep the parameters at each look, and find out the accuracy at the end
  std::int64_t straggler_ns = 0;  // the last worker's delay after each gradient
  std::uint64_t seed = 1;
  bool terminal = false;  // stdout is one
};

struct RunOutcome {
  Report report;                 // what the supervisor knows; the rest is the caller's to fill in
  std::optional<Error> failure;  // the run did not end as it should; the report is still true
  int signal = 0;                // that interrupted the run; 0 for none
};

// A worker's process: its exchange, its part of the data, its loop. Returns the exit status.
int work(const Dataset& dataset, Architecture& architecture, const RunControl& control,
         const RunOptions& options, std::size_t index, RecordWriter& records);

// Trains. Starts a process for each worker and returns when all of them have ended, whatever happens to it or
// them:
//  - a worker that fails or is killed is told on stderr and in the report, and the others go on if the
//    architecture can go on without it; without its driver or server none can;
//  - SIGINT, SIGTERM and SIGHUP end the run after the batches under way; a second one, or 10 s, kills the
//    workers;
//  - should this process be killed, all others are killed by the kernel.
// The calling process has one thread. An Error means that nothing was trained.
Result<RunOutcome> train(const Dataset& dataset, Architecture& architecture, SharedControl& control,
                         const RunOptions& options);

}  // namespace gradfs::trainer
