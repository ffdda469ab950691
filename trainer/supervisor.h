// Supervisor: starts the worker processes of a run, watches them, measures accuracy, and tells what came of
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "trainer/dataset.h"
#include "trainer/exchange.h"
#include "trainer/progress.h"
#include "trainer/report.h"
#include "trainer/worker.h"

namespace gradfs::trainer {

struct RunOptions {
  std::size_t workers = 1;
  std::size_t partitions = 1;
  WorkerOptions worker;
  std::size_t epochs = 0;  // 0 for no end
  std::optional<double> seconds_max;
  std::optional<double> target_accuracy;  // ends the run when it is reached
  std::uint64_t seed = 1;
  bool terminal = false;  // stdout is one
};

// Owns a page that workers share with their supervisor. Not movable: workers hold its address.
class SharedControl {
 public:
  static Result<std::unique_ptr<SharedControl>> make();
  ~SharedControl();
  SharedControl(const SharedControl&) = delete;
  SharedControl& operator=(const SharedControl&) = delete;
  RunControl& operator*() const noexcept { return *control_; }
  RunControl* operator->() const noexcept { return control_; }

 private:
  explicit SharedControl(RunControl* control) : control_(control) {}
  RunControl* control_;
};

struct RunOutcome {
  Report report;                 // what the supervisor knows; the rest is the caller's to fill in
  std::optional<Error> failure;  // the run did not end as it should; the report is still true
  int signal = 0;                // that interrupted the run; 0 for none
};

// Trains. Forks a process for each worker and returns when all of them have ended, whatever happens to it or
// them:
//  - a worker that fails or is killed is told on stderr and in the report, and the others go on;
//  - SIGINT, SIGTERM and SIGHUP end the run after the batches under way; a second one, or 10 s, kills the
//  workers;
//  - should this process be killed, its workers are killed by the kernel.
// The calling process has one thread. An Error means that nothing was trained.
Result<RunOutcome> train(const Dataset& dataset, Architecture& architecture, SharedControl& control,
                         const RunOptions& options);

}  // namespace gradfs::trainer
