// Worker: one process's loop of computing a gradient, pushing it, and getting newer parameters.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/dataset.h"
#include "trainer/exchange.h"
#include "trainer/look_ahead.h"
#include "trainer/network.h"
#include "trainer/partition.h"
#include "trainer/records.h"

namespace gradfs::trainer {

struct WorkerOptions {
  std::size_t batch_size = 64;
  std::size_t batches_per_push = 1;  // n_push: a gradient is the mean over the samples of so many batches
  std::size_t pushes_per_fetch = 1;  // n_fetch: parameters are read anew after every so many gradients; with
                                     // 1 they are used where they lie, else a copy is
  float label_smoothing = 0;         // as for Network
  double look_ahead = 0;      // the factor of LookAhead; 0: gradients are of the parameters as they are
  std::int64_t delay_ns = 0;  // slept after each gradient's computation, as a slow machine would
};

// What one push came to.
struct StepReport {
  std::uint64_t step = 0;
  std::uint64_t samples = 0;
  double loss_sum = 0;
  PushOutcome outcome = PushOutcome::kCounted;
};

// One thread. samples must outlive it; the exchange is its own.
class Worker {
 public:
  Worker(const Samples& samples, std::vector<DenseLayer> layers, BatchPlan plan, const WorkerOptions& options,
         std::unique_ptr<Exchange> exchange);

  // Computes the next gradient into the exchange's buffer; false if the plan is at its end. A stop that is
  // seen between two batches drops what is not whole, and gives false too. stop may be null.
  Result<bool> compute(const std::atomic<bool>* stop = nullptr);
  // Pushes what compute() made, and gets newer parameters if it is time.
  Result<StepReport> push();
  // No more pushes.
  Result<void> leave() { return exchange_->leave(); }
  [[nodiscard]] std::uint64_t bytes_moved() const { return exchange_->bytes_moved(); }

 private:
  Result<void> refresh();
  void look_ahead();
  void delay(const std::atomic<bool>* stop) const;

  const Samples& samples_;
  const WorkerOptions options_;
  Network network_;
  BatchPlan plan_;
  std::unique_ptr<Exchange> exchange_;
  std::vector<std::uint8_t> labels_;
  const float* parameters_ = nullptr;
  std::vector<float> private_parameters_;
  bool is_fresh_ = false;  // parameters_ were read and not looked ahead of
  LookAhead look_ahead_;
  StepReport current_;
};

// The whole life of a worker's process after its exchange is there: tells the supervisor it is ready, waits
// for go, trains until its plan, the deadline or a stop ends it, and says why it ended. Returns its exit
// status.
int run_worker(Worker& worker, const RunControl& control, RecordWriter& records);

}  // namespace gradfs::trainer
