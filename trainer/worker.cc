#include "trainer/worker.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "fs/base/check.h"
#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

constexpr unsigned kGoPoll_us = 500;
constexpr std::uint64_t kDropsInARow = 100;  // more, and the model's policy cannot be met by this worker

}  // namespace

Worker::Worker(const Samples& samples, std::vector<DenseLayer> layers, BatchPlan plan,
               const WorkerOptions& options, std::unique_ptr<Exchange> exchange)
    : samples_(samples),
      options_(options),
      network_(std::move(layers), options.batch_size, options.label_smoothing),
      plan_(std::move(plan)),
      exchange_(std::move(exchange)),
      labels_(options.batch_size) {
  GRADFS_CHECK(plan_.batch_size() == options_.batch_size && options_.pushes_per_fetch > 0);
  GRADFS_CHECK(network_.inputs() == samples_.features() && network_.classes() >= samples_.classes());
}

Result<const float*> Worker::parameters() {
  if (options_.pushes_per_fetch == 1) {
    if (const std::span<const float> live = exchange_->live(); !live.empty()) return live.data();
  }
  if ((current_.step - 1) % options_.pushes_per_fetch == 0) {
    private_parameters_.resize(exchange_->gradient().size());
    GRADFS_TRYV(exchange_->fetch(private_parameters_));
  }
  return private_parameters_.data();
}

Result<bool> Worker::compute(const std::atomic<bool>* stop) {
  std::span<const std::uint32_t> rows = plan_.next();
  if (rows.empty()) return false;
  current_ = {current_.step + 1, rows.size(), 0, PushOutcome::kCounted};
  GRADFS_TRY(const float* parameters, this->parameters());
  const float scale = 1.0f / static_cast<float>(rows.size());
  for (bool first = true; !rows.empty(); first = false) {
    if (!first && stop != nullptr && stop->load(std::memory_order_relaxed)) return false;
    const auto batch = rows.first(std::min(options_.batch_size, rows.size()));
    rows = rows.subspan(batch.size());
    GRADFS_TRYV(samples_.gather(batch, network_.batch(), labels_));
    current_.loss_sum += network_.gradient(parameters, std::span(labels_).first(batch.size()), scale, !first,
                                           exchange_->gradient().data());
  }
  return true;
}

Result<StepReport> Worker::push() {
  const double loss = current_.loss_sum / static_cast<double>(current_.samples);
  GRADFS_TRY(PushOutcome outcome, exchange_->push(current_.step, loss));
  current_.outcome = outcome;
  return current_;
}

int run_worker(Worker& worker, const RunControl& control, RecordWriter& records) {
  records.write(Record{.kind = RecordKind::kReady});
  while (!control.go.load(std::memory_order_acquire) && !control.stop.load(std::memory_order_relaxed)) {
    ::usleep(kGoPoll_us);
  }
  const std::int64_t deadline_ns = control.deadline_ns.load(std::memory_order_relaxed);
  std::uint64_t drops = 0;
  while (!control.stop.load(std::memory_order_relaxed)) {
    Record record{.kind = RecordKind::kPush, .started_ns = real_now_ns()};
    if (deadline_ns != 0 && record.started_ns >= deadline_ns) break;
    const Result<bool> more = worker.compute(&control.stop);
    if (more && !more.value()) break;
    const Result<StepReport> report = more ? worker.push() : Result<StepReport>(more.error());
    if (!report) {
      if (control.stop.load(std::memory_order_relaxed)) break;
      records.fail(report.error().message());
      return 1;
    }
    record.ended_ns = real_now_ns();
    record.counted = report.value().outcome == PushOutcome::kCounted ? 1 : 0;
    record.samples = report.value().samples;
    record.loss_sum = report.value().loss_sum;
    if (!records.write(record)) return 1;
    drops = record.counted != 0 ? 0 : drops + 1;
    if (drops > kDropsInARow) {
      records.fail("the model has refused " + std::to_string(drops) + " gradients in a row as too late");
      return 1;
    }
  }
  records.write(Record{.kind = RecordKind::kDone});
  return 0;
}

}  // namespace gradfs::trainer
