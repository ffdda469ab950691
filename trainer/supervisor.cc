#include "trainer/supervisor.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "fs/base/clock.h"
#include "trainer/crew.h"
#include "trainer/durations.h"
#include "trainer/evaluations.h"
#include "trainer/progress.h"
#include "trainer/usage.h"

namespace gradfs::trainer {
namespace {

constexpr int kTick_ms = 20;
constexpr std::int64_t kReadyLimit_ns = 60 * kSecond_ns;
constexpr std::int64_t kStopGrace_ns = 10 * kSecond_ns;
constexpr std::int64_t kUsagePeriod_ns = kSecond_ns;

double seconds(std::int64_t ns) { return static_cast<double>(ns) / kSecond_ns; }

class Run final : CrewListener {
 public:
  Run(const Dataset& dataset, Architecture& architecture, SharedControl& control, const RunOptions& options)
      : dataset_(dataset),
        architecture_(architecture),
        control_(control),
        options_(options),
        usage_(architecture.works_through_files() ? filesystem_servers() : std::vector<pid_t>()),
        evaluations_(*dataset.test, architecture, options.evaluate_every, options.evaluate_later),
        loss_(dataset.train->rows()),
        display_(options.terminal),
        crew_(architecture, control, signals_, *this) {}

  Result<RunOutcome> run();

 private:
  Result<void> wait_ready();
  Result<void> watch();
  Result<void> end();
  void tick();
  void take_signals();
  void measure_memory();
  Result<void> evaluate(double at_seconds);
  void fill_report();

  void on_push(const Record& record) override;
  void on_failure(std::size_t worker, const std::string& why) override;
  void on_lost(std::size_t worker, const std::string& how) override;
  void on_service_lost(const std::string& how) override;

  [[nodiscard]] double epoch() const {
    return static_cast<double>(report_.samples) / static_cast<double>(dataset_.train->rows());
  }
  [[nodiscard]] ProgressDisplay::State state(double at_seconds) const;
  void fail(const std::string& why) {
    if (!outcome_.failure) outcome_.failure = Error(Errc::kIo, why);
  }
  void stop_now() {
    control_->stop.store(true, std::memory_order_relaxed);
    if (stopped_ns_ == 0) stopped_ns_ = real_now_ns();
  }

  const Dataset& dataset_;
  Architecture& architecture_;
  SharedControl& control_;
  const RunOptions options_;
  UsageMeter usage_;
  Evaluations evaluations_;
  LossWindow loss_;
  Durations exchange_;
  Durations compute_;
  ProgressDisplay display_;
  SignalBlock signals_;
  UniqueFd signal_fd_;
  Report report_;
  RunOutcome outcome_;
  std::int64_t go_ns_ = 0;
  std::int64_t first_ns_ = 0;    // when the first batch began
  std::int64_t last_ns_ = 0;     // when the last push ended
  std::int64_t stopped_ns_ = 0;  // when the run was told to end; 0 if it was not
  std::int64_t measured_ns_ = 0;
  Crew crew_;  // last: its processes end first
};

Result<RunOutcome> Run::run() {
  GRADFS_TRY(signal_fd_, signals_.descriptor());
  const auto body = [this](std::size_t index, RecordWriter& records) {
    return work(dataset_, architecture_, *control_, options_, index, records);
  };
  GRADFS_TRYV(crew_.start(options_.workers, body));
  GRADFS_TRYV(wait_ready());
  go_ns_ = real_now_ns();
  if (options_.seconds_max) {
    control_->deadline_ns.store(go_ns_ + static_cast<std::int64_t>(*options_.seconds_max * kSecond_ns));
  }
  control_->go.store(true, std::memory_order_release);
  GRADFS_TRYV(watch());
  GRADFS_TRYV(end());
  outcome_.report = std::move(report_);
  return std::move(outcome_);
}

Result<void> Run::wait_ready() {
  const std::int64_t deadline_ns = real_now_ns() + kReadyLimit_ns;
  while (!crew_.ready()) {
    tick();
    if (outcome_.failure) return *outcome_.failure;
    if (outcome_.signal != 0) return Error(Errc::kInterrupted, "before the training began");
    if (real_now_ns() > deadline_ns) return Error(Errc::kTimeout, "the workers do not become ready");
  }
  return ok();
}

Result<void> Run::watch() {
  while (crew_.running()) {
    tick();
    const std::int64_t now = real_now_ns();
    if (stopped_ns_ != 0 && now - stopped_ns_ > kStopGrace_ns) crew_.kill_workers();
    if (now - measured_ns_ > kUsagePeriod_ns) measure_memory();
    const double at_seconds = first_ns_ == 0 ? 0 : seconds(now - first_ns_);
    if (evaluations_.due(epoch()) && crew_.running() && stopped_ns_ == 0) {
      GRADFS_TRYV(evaluate(at_seconds));
      if (options_.target_accuracy && report_.test_accuracy >= *options_.target_accuracy) stop_now();
    }
    display_.update(state(at_seconds));
  }
  if (report_.workers_lost.size() == crew_.size()) fail("all workers were killed");
  return ok();
}

Result<void> Run::end() {
  measure_memory();
  crew_.finish();
  GRADFS_TRYV(evaluate(seconds(last_ns_ - first_ns_)));
  GRADFS_TRY(report_.history, evaluations_.finish());
  if (!report_.history.empty()) report_.test_accuracy = report_.history.back().test_accuracy;
  display_.finish();
  fill_report();
  if (const Result<void> finished = architecture_.finish(); !finished) {
    if (!outcome_.failure) outcome_.failure = finished.error();
  }
  architecture_.clean_up(options_.workers);
  return ok();
}

void Run::tick() {
  pollfd waiting{signal_fd_.get(), POLLIN, 0};
  ::poll(&waiting, 1, kTick_ms);
  take_signals();
  crew_.poll();
}

void Run::take_signals() {
  signalfd_siginfo info{};
  while (::read(signal_fd_.get(), &info, sizeof info) == sizeof info) {
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGCHLD) continue;
    if (outcome_.signal != 0) crew_.kill_workers();
    if (outcome_.signal == 0) {
      outcome_.signal = number;
      display_.message("ending after the batches under way; once more to end at once");
    }
    stop_now();
  }
}

void Run::measure_memory() {
  measured_ns_ = real_now_ns();
  std::vector<pid_t> pids = crew_.pids();
  pids.push_back(::getpid());
  usage_.sample(pids, evaluations_.kept_bytes());
}

void Run::on_push(const Record& record) {
  if (first_ns_ == 0 || record.started_ns < first_ns_) first_ns_ = record.started_ns;
  last_ns_ = std::max(last_ns_, record.ended_ns);
  report_.samples += record.samples;
  report_.bytes_moved += record.bytes_moved;
  exchange_.add(record.exchange_ns);
  compute_.add(record.compute_ns);
  switch (record.outcome) {
    case PushOutcome::kCounted:
      ++report_.gradients_applied;
      loss_.add(record.samples, record.loss_sum);
      break;
    case PushOutcome::kDropped:
      ++report_.gradients_dropped;
      loss_.add(record.samples, record.loss_sum);
      break;
    case PushOutcome::kRefused:
      if (report_.gradients_refused++ == 0) {
        display_.message(
            "a gradient is not finite, or over the model's limit, and was refused; the training goes on");
      }
      break;
  }
}

void Run::on_failure(std::size_t worker, const std::string& why) {
  fail("worker " + std::to_string(worker) + ": " + why);
  if (go_ns_ != 0) display_.message("worker " + std::to_string(worker) + " ends: " + why);
}

void Run::on_lost(std::size_t worker, const std::string& how) {
  report_.workers_lost.push_back(worker);
  const std::string said = "worker " + std::to_string(worker) + (how.empty() ? " has failed" : " " + how);
  if (go_ns_ == 0) return fail(said);
  if (architecture_.needs_all_workers()) {
    fail(said + "; " + architecture_.name() + " cannot go on without it");
    return stop_now();
  }
  if (!how.empty()) display_.message(said + (crew_.running() ? "; the others go on" : ""));
}

void Run::on_service_lost(const std::string& how) {
  // What workers say that have lost it is not the cause.
  outcome_.failure = Error(
      Errc::kIo, "the " + architecture_.service() + " " + how + "; without it the workers cannot go on");
  stop_now();
}

Result<void> Run::evaluate(double at_seconds) {
  const Evaluation seen{.seconds = at_seconds, .epoch = epoch(), .loss = loss_.mean()};
  GRADFS_TRY(const std::optional<double> accuracy, evaluations_.take(seen));
  if (!accuracy) return ok();
  report_.test_accuracy = *accuracy;
  display_.evaluated(state(at_seconds));
  return ok();
}

ProgressDisplay::State Run::state(double at_seconds) const {
  ProgressDisplay::State out;
  out.epoch = epoch();
  out.epochs = options_.epochs;
  out.seconds = at_seconds;
  if (options_.epochs > 0) out.done = out.epoch / out.epochs;
  if (options_.seconds_max) out.done = std::max(out.done, at_seconds / *options_.seconds_max);
  out.loss = loss_.mean();
  out.accuracy = evaluations_.any() ? report_.test_accuracy : -1;
  out.samples_per_second = at_seconds > 0 ? static_cast<double>(report_.samples) / at_seconds : 0;
  return out;
}

void Run::fill_report() {
  report_.architecture = architecture_.name();
  report_.dataset = dataset_.name;
  report_.layers = layer_widths(architecture_.layers());
  report_.parameters = architecture_.parameters();
  report_.workers = options_.workers;
  report_.partitions = options_.partitions;
  if (options_.epochs > 0) report_.epochs = options_.epochs;
  report_.seconds_max = options_.seconds_max;
  report_.epochs_completed = epoch();
  report_.batch_size = options_.worker.batch_size;
  report_.n_push = options_.worker.batches_per_push;
  report_.n_fetch = options_.worker.pushes_per_fetch;
  report_.look_ahead = options_.worker.look_ahead;
  report_.label_smoothing = options_.worker.label_smoothing;
  report_.seed = options_.seed;
  report_.kernels = dense_kernels().name;
  report_.optimizer = architecture_.optimizer();
  report_.model_version = architecture_.version();
  report_.train_loss = loss_.mean();
  report_.train_seconds = seconds(last_ns_ - first_ns_);
  if (report_.train_seconds > 0) {
    report_.samples_per_second = static_cast<double>(report_.samples) / report_.train_seconds;
    report_.updates_per_second = static_cast<double>(report_.gradients_applied) / report_.train_seconds;
  }
  report_.exchange = {exchange_.quantile_ms(0.5), exchange_.quantile_ms(0.99)};
  report_.compute = {compute_.quantile_ms(0.5), compute_.quantile_ms(0.99)};
  report_.server_cpu_seconds = usage_.server_cpu_seconds();
  report_.cpu_seconds = crew_.cpu_seconds() + report_.server_cpu_seconds;
  report_.peak_memory_bytes = usage_.peak_bytes();
  report_.interrupted = outcome_.signal != 0;
}

}  // namespace

int work(const Dataset& dataset, Architecture& architecture, const RunControl& control,
         const RunOptions& options, std::size_t index, RecordWriter& records) {
  Result<std::vector<std::vector<Rows>>> dealt =
      deal_partitions(dataset.train->rows(), options.partitions, options.workers, options.seed);
  Result<std::unique_ptr<Exchange>> exchange = architecture.make_exchange(index);
  if (!exchange || !dealt) {
    records.fail(!dealt ? dealt.error().message() : exchange.error().message());
    return 1;
  }
  BatchPlan plan(std::move(dealt.value()[index]), options.worker.batch_size, options.worker.batches_per_push,
                 options.epochs, options.seed * 1'000'003 + index);
  dealt.value().clear();
  WorkerOptions own = options.worker;
  if (index + 1 == options.workers) own.delay_ns = options.straggler_ns;
  Worker worker(*dataset.train, architecture.layers(), std::move(plan), own, std::move(exchange.value()));
  return run_worker(worker, control, records);
}

Result<RunOutcome> train(const Dataset& dataset, Architecture& architecture, SharedControl& control,
                         const RunOptions& options) {
  const std::vector<DenseLayer>& layers = architecture.layers();
  if (layers.front().inputs != dataset.train->features()) {
    return Error(Errc::kInvalid, "the model takes " + std::to_string(layers.front().inputs) +
                                     " values, a sample has " + std::to_string(dataset.train->features()));
  }
  const std::size_t classes = std::max(dataset.train->classes(), dataset.test->classes());
  if (layers.back().outputs < classes) {
    return Error(Errc::kInvalid, "the model tells " + std::to_string(layers.back().outputs) +
                                     " classes apart, the data set has " + std::to_string(classes));
  }
  if (dataset.train->rows() < options.partitions) {
    return Error(Errc::kInvalid, std::to_string(dataset.train->rows()) + " samples cannot be cut into " +
                                     std::to_string(options.partitions) + " partitions");
  }
  Run run(dataset, architecture, control, options);
  return run.run();
}

}  // namespace gradfs::trainer
