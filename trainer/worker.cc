#include "trainer/worker.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "fs/base/check.h"
#include "fs/base/clock.h"
#include "fs/base/subnormals.h"

namespace gradfs::trainer {
namespace {

constexpr unsigned kGoPoll_us = 500;
constexpr std::int64_t kDelayStep_ns = 20 * kMillisecond_ns;  // how soon a stop ends a delay
// More, and the model's policy cannot be met by this worker, or its training has diverged.
constexpr std::uint64_t kLostInARow = 100;

std::string why_lost(PushOutcome outcome) {
  const std::string many = std::to_string(kLostInARow);
  if (outcome == PushOutcome::kDropped) {
    return "the model has refused " + many + " gradients in a row as too late";
  }
  return many + " gradients in a row are not finite, or over the model's limit: " +
         "lower the learning rate, or look at the data";
}

void note(const StepReport& report, Record& record) {
  record.outcome = report.outcome;
  record.samples = report.samples;
  record.loss_sum = report.loss_sum;
}

}  // namespace

Worker::Worker(const Samples& samples, std::vector<DenseLayer> layers, BatchPlan plan,
               const WorkerOptions& options, std::unique_ptr<Exchange> exchange)
    : samples_(samples),
      options_(options),
      network_(std::move(layers), options.batch_size, options.label_smoothing),
      plan_(std::move(plan)),
      exchange_(std::move(exchange)),
      labels_(options.batch_size),
      look_ahead_(options.look_ahead) {
  GRADFS_CHECK(plan_.batch_size() == options_.batch_size && options_.pushes_per_fetch > 0);
  GRADFS_CHECK(network_.inputs() == samples_.features() && network_.classes() >= samples_.classes());
}

Result<void> Worker::refresh() {
  if (current_.step % options_.pushes_per_fetch != 0) return ok();
  is_fresh_ = true;
  if (options_.pushes_per_fetch == 1) {
    GRADFS_TRY(const std::span<const float> parameters, exchange_->current());
    parameters_ = parameters.data();
    return ok();
  }
  private_parameters_.resize(exchange_->gradient().size());
  parameters_ = private_parameters_.data();
  return exchange_->fetch(private_parameters_);
}

void Worker::look_ahead() {
  if (!is_fresh_ || options_.look_ahead == 0) return;
  is_fresh_ = false;
  parameters_ = look_ahead_.at({parameters_, exchange_->gradient().size()});
}

Result<bool> Worker::compute(const std::atomic<bool>* stop) {
  std::span<const std::uint32_t> rows = plan_.next();
  if (rows.empty()) return false;
  if (parameters_ == nullptr) {
    GRADFS_TRYV(refresh());
  }
  look_ahead();
  current_ = {current_.step + 1, rows.size(), 0, PushOutcome::kCounted};
  const float scale = 1.0f / static_cast<float>(rows.size());
  for (bool first = true; !rows.empty(); first = false) {
    if (!first && stop != nullptr && stop->load(std::memory_order_relaxed)) return false;
    const auto batch = rows.first(std::min(options_.batch_size, rows.size()));
    rows = rows.subspan(batch.size());
    GRADFS_TRYV(samples_.gather(batch, network_.batch(), labels_));
    current_.loss_sum += network_.gradient(parameters_, std::span(labels_).first(batch.size()), scale, !first,
                                           exchange_->gradient().data());
  }
  delay(stop);
  return true;
}

void Worker::delay(const std::atomic<bool>* stop) const {
  for (std::int64_t left = options_.delay_ns; left > 0; left -= kDelayStep_ns) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) return;
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(left, kDelayStep_ns)));
  }
}

Result<StepReport> Worker::push() {
  const double loss = current_.loss_sum / static_cast<double>(current_.samples);
  GRADFS_TRY(PushOutcome outcome, exchange_->push(current_.step, loss));
  current_.outcome = outcome;
  GRADFS_TRYV(refresh());
  return current_;
}

int run_worker(Worker& worker, const RunControl& control, RecordWriter& records) {
  const FlushSubnormals flush;  // activations that fade would cost more than all others
  records.write(Record{.kind = RecordKind::kReady, .pid = ::getpid()});
  while (!control.go.load(std::memory_order_acquire) && !control.stop.load(std::memory_order_relaxed)) {
    ::usleep(kGoPoll_us);
  }
  const std::int64_t deadline_ns = control.deadline_ns.load(std::memory_order_relaxed);
  std::uint64_t lost = 0;
  std::uint64_t bytes_before = 0;
  while (!control.stop.load(std::memory_order_relaxed)) {
    Record record{.kind = RecordKind::kPush, .started_ns = real_now_ns()};
    if (deadline_ns != 0 && record.started_ns >= deadline_ns) break;
    const Result<bool> more = worker.compute(&control.stop);
    if (more && !more.value()) break;
    const std::int64_t ready_ns = real_now_ns();
    const Result<StepReport> report = more ? worker.push() : Result<StepReport>(more.error());
    if (!report) {
      if (control.stop.load(std::memory_order_relaxed)) break;
      records.fail(report.error().message());
      return 1;
    }
    note(report.value(), record);
    record.ended_ns = real_now_ns();
    record.compute_ns = ready_ns - record.started_ns;
    record.exchange_ns = record.ended_ns - ready_ns;
    record.bytes_moved = worker.bytes_moved() - bytes_before;
    bytes_before += record.bytes_moved;
    if (!records.write(record)) return 1;
    lost = record.outcome == PushOutcome::kCounted ? 0 : lost + 1;
    if (lost == kLostInARow) {
      records.fail(why_lost(record.outcome));
      return 1;
    }
  }
  if (const Result<void> left = worker.leave(); !left && !control.stop.load(std::memory_order_relaxed)) {
    records.fail(left.error().message());
    return 1;
  }
  records.write(Record{.kind = RecordKind::kDone});
  return 0;
}

}  // namespace gradfs::trainer
