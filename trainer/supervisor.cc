#include "trainer/supervisor.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>

#include "fs/base/clock.h"
#include "trainer/evaluator.h"

namespace gradfs::trainer {
namespace {

constexpr int kTick_ms = 50;
constexpr std::int64_t kReadyLimit_ns = 60 * kSecond_ns;
constexpr std::int64_t kStopGrace_ns = 10 * kSecond_ns;
constexpr double kEarlyEvaluations[] = {0.1, 0.25};  // epochs; afterwards each half
constexpr double kEvaluationStep = 0.5;
constexpr double kEvaluationRest = 4;  // as long as the last evaluation took, times this, none is made,
constexpr std::int64_t kEvaluationGap_ns = 500 * kMillisecond_ns;  // nor for less than this

double seconds(std::int64_t ns) { return static_cast<double>(ns) / kSecond_ns; }

double next_evaluation_after(double epoch) {
  for (const double early : kEarlyEvaluations) {
    if (epoch < early) return early;
  }
  return (static_cast<double>(static_cast<std::uint64_t>(epoch / kEvaluationStep)) + 1) * kEvaluationStep;
}

// Blocks the signals that the supervisor takes from a descriptor, and restores the mask.
class SignalBlock {
 public:
  SignalBlock() {
    sigemptyset(&blocked_);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&blocked_, number);
    ::sigprocmask(SIG_BLOCK, &blocked_, &before_);
  }
  ~SignalBlock() { restore(); }
  SignalBlock(const SignalBlock&) = delete;
  SignalBlock& operator=(const SignalBlock&) = delete;
  void restore() const { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  [[nodiscard]] Result<UniqueFd> descriptor() const {
    UniqueFd fd(::signalfd(-1, &blocked_, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd) return errno_error("signalfd");
    return fd;
  }

 private:
  sigset_t blocked_{};
  sigset_t before_{};
};

struct WorkerProcess {
  pid_t pid = -1;  // -1 once it is reaped
  RecordReader records;
  bool ready = false;
  bool done = false;    // it said so
  bool failed = false;  // likewise
};

class Run {
 public:
  Run(const Dataset& dataset, Architecture& architecture, SharedControl& control, const RunOptions& options)
      : dataset_(dataset),
        architecture_(architecture),
        control_(control),
        options_(options),
        evaluator_(*dataset.test, architecture.layers(), architecture.parameters()),
        loss_(dataset.train->rows()),
        display_(options.terminal) {}
  ~Run();

  Result<RunOutcome> run();

 private:
  Result<void> start_workers();
  [[noreturn]] void worker_main(std::size_t index, Rows rows, UniqueFd pipe);
  Result<void> wait_ready();
  Result<void> watch();
  void tick();
  void take_signals();
  void take_records(std::size_t index);
  void note_push(const Record& record);
  void reap();
  void enforce_stop();
  Result<void> evaluate(double at_seconds);
  void fill_report();

  [[nodiscard]] bool running() const {
    return std::ranges::any_of(workers_, [](const WorkerProcess& worker) { return worker.pid > 0; });
  }
  [[nodiscard]] double epoch() const {
    return static_cast<double>(report_.samples) / static_cast<double>(dataset_.train->rows());
  }
  [[nodiscard]] ProgressDisplay::State state(double at_seconds) const;
  void stop_now() {
    control_->stop.store(true, std::memory_order_relaxed);
    if (stopped_ns_ == 0) stopped_ns_ = real_now_ns();
  }
  void kill_workers() {
    for (const WorkerProcess& worker : workers_) {
      if (worker.pid > 0) ::kill(worker.pid, SIGKILL);
    }
  }

  const Dataset& dataset_;
  Architecture& architecture_;
  SharedControl& control_;
  const RunOptions options_;
  Evaluator evaluator_;
  LossWindow loss_;
  ProgressDisplay display_;
  SignalBlock signals_;
  UniqueFd signal_fd_;
  std::vector<WorkerProcess> workers_;
  Report report_;
  RunOutcome outcome_;
  std::int64_t go_ns_ = 0;
  std::int64_t first_ns_ = 0;    // when the first batch began
  std::int64_t last_ns_ = 0;     // when the last push ended
  std::int64_t stopped_ns_ = 0;  // when the run was told to end; 0 if it was not
  double next_evaluation_ = kEarlyEvaluations[0];
  std::int64_t evaluate_from_ns_ = 0;
};

Run::~Run() {
  kill_workers();
  for (WorkerProcess& worker : workers_) {
    if (worker.pid > 0) ::waitpid(worker.pid, nullptr, 0);
  }
  architecture_.clean_up(options_.workers);
}

Result<RunOutcome> Run::run() {
  GRADFS_TRY(UniqueFd signal_fd, signals_.descriptor());
  signal_fd_ = std::move(signal_fd);
  GRADFS_TRYV(start_workers());
  GRADFS_TRYV(wait_ready());
  go_ns_ = real_now_ns();
  if (options_.seconds_max) {
    control_->deadline_ns.store(go_ns_ + static_cast<std::int64_t>(*options_.seconds_max * kSecond_ns));
  }
  control_->go.store(true, std::memory_order_release);
  GRADFS_TRYV(watch());
  GRADFS_TRYV(evaluate(seconds(last_ns_ - first_ns_)));
  display_.finish();
  fill_report();
  outcome_.report = std::move(report_);
  return std::move(outcome_);
}

Result<void> Run::start_workers() {
  GRADFS_TRY(std::vector<Rows> rows,
             deal_rows(dataset_.train->rows(), options_.partitions, options_.workers, options_.seed));
  std::fflush(nullptr);
  for (std::size_t index = 0; index < options_.workers; ++index) {
    GRADFS_TRY(RecordPipe pipe, make_record_pipe());
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) return errno_error("fork");
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(1);
      worker_main(index, std::move(rows[index]), std::move(pipe.writer));
    }
    workers_.push_back({.pid = pid, .records = RecordReader(std::move(pipe.reader))});
  }
  return ok();
}

void Run::worker_main(std::size_t index, Rows rows, UniqueFd pipe) {
  ::prctl(PR_SET_NAME, ("train-w" + std::to_string(index)).c_str());
  // A terminal sends these to every process in the foreground; the supervisor tells the workers what to do.
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGTERM, SIG_DFL);
  ::signal(SIGPIPE, SIG_IGN);
  signals_.restore();
  RecordWriter records(std::move(pipe));
  int status = 1;
  Result<std::unique_ptr<Exchange>> exchange = architecture_.make_exchange(index);
  if (!exchange) {
    records.fail(exchange.error().message());
  } else {
    BatchPlan plan(std::move(rows), options_.worker.batch_size, options_.worker.batches_per_push,
                   options_.epochs, options_.seed * 1'000'003 + index);
    Worker worker(*dataset_.train, architecture_.layers(), std::move(plan), options_.worker,
                  std::move(exchange.value()));
    status = run_worker(worker, *control_, records);
  }
  ::_exit(status);  // without the destructors and buffers that belong to the supervisor
}

Result<void> Run::wait_ready() {
  const std::int64_t deadline_ns = real_now_ns() + kReadyLimit_ns;
  while (!std::ranges::all_of(workers_, &WorkerProcess::ready)) {
    tick();
    if (outcome_.failure) return *outcome_.failure;
    if (outcome_.signal != 0) return Error(Errc::kInterrupted, "before the training began");
    if (!report_.workers_lost.empty()) {
      return Error(Errc::kIo, "worker " + std::to_string(report_.workers_lost.front()) + " was killed");
    }
    if (real_now_ns() > deadline_ns) return Error(Errc::kTimeout, "the workers do not become ready");
  }
  return ok();
}

Result<void> Run::watch() {
  while (running()) {
    tick();
    enforce_stop();
    const std::int64_t now = real_now_ns();
    const double at_seconds = first_ns_ == 0 ? 0 : seconds(now - first_ns_);
    if (epoch() >= next_evaluation_ && now >= evaluate_from_ns_ && running() && stopped_ns_ == 0) {
      GRADFS_TRYV(evaluate(at_seconds));
      next_evaluation_ = next_evaluation_after(epoch());
      const std::int64_t after = real_now_ns();
      const auto rest_ns = static_cast<std::int64_t>(kEvaluationRest * static_cast<double>(after - now));
      evaluate_from_ns_ = after + std::max(rest_ns, kEvaluationGap_ns);
      if (options_.target_accuracy && report_.test_accuracy >= *options_.target_accuracy) stop_now();
    }
    display_.update(state(at_seconds));
  }
  if (report_.workers_lost.size() == workers_.size() && !outcome_.failure) {
    outcome_.failure = Error(Errc::kIo, "all workers were killed");
  }
  return ok();
}

void Run::tick() {
  pollfd waiting{signal_fd_.get(), POLLIN, 0};
  ::poll(&waiting, 1, kTick_ms);
  take_signals();
  for (std::size_t index = 0; index < workers_.size(); ++index) take_records(index);
  reap();
}

void Run::take_signals() {
  signalfd_siginfo info{};
  while (::read(signal_fd_.get(), &info, sizeof info) == sizeof info) {
    const int number = static_cast<int>(info.ssi_signo);
    if (number == SIGCHLD) continue;
    if (outcome_.signal != 0) kill_workers();
    if (outcome_.signal == 0) {
      outcome_.signal = number;
      display_.message("ending after the batches under way; once more to end at once");
    }
    stop_now();
  }
}

void Run::take_records(std::size_t index) {
  WorkerProcess& worker = workers_[index];
  Record record;
  while (worker.records.read(record)) {
    switch (record.kind) {
      case RecordKind::kReady:
        worker.ready = true;
        break;
      case RecordKind::kPush:
        note_push(record);
        break;
      case RecordKind::kDone:
        worker.done = true;
        break;
      case RecordKind::kFailed:
        worker.failed = true;
        record.text[sizeof record.text - 1] = '\0';
        if (!outcome_.failure) {
          outcome_.failure = Error(Errc::kIo, "worker " + std::to_string(index) + ": " + record.text);
        }
        if (go_ns_ != 0) display_.message("worker " + std::to_string(index) + " ends: " + record.text);
        break;
    }
  }
}

void Run::note_push(const Record& record) {
  if (first_ns_ == 0 || record.started_ns < first_ns_) first_ns_ = record.started_ns;
  last_ns_ = std::max(last_ns_, record.ended_ns);
  report_.samples += record.samples;
  (record.counted != 0 ? report_.gradients_applied : report_.gradients_dropped) += 1;
  loss_.add(record.samples, record.loss_sum);
}

void Run::reap() {
  for (std::size_t index = 0; index < workers_.size(); ++index) {
    WorkerProcess& worker = workers_[index];
    int status = 0;
    if (worker.pid <= 0 || ::waitpid(worker.pid, &status, WNOHANG) != worker.pid) continue;
    worker.pid = -1;
    take_records(index);  // what it said last
    if (worker.done) continue;
    report_.workers_lost.push_back(index);
    if (worker.failed || go_ns_ == 0) continue;
    const std::string how = WIFSIGNALED(status)
                                ? std::string("was killed by ") + ::strsignal(WTERMSIG(status))
                                : "ended with status " + std::to_string(WEXITSTATUS(status));
    display_.message("worker " + std::to_string(index) + " " + how + (running() ? "; the others go on" : ""));
  }
}

void Run::enforce_stop() {
  if (stopped_ns_ != 0 && real_now_ns() - stopped_ns_ > kStopGrace_ns) kill_workers();
}

Result<void> Run::evaluate(double at_seconds) {
  GRADFS_TRY(double accuracy, evaluator_.accuracy(architecture_.observer()));
  report_.test_accuracy = accuracy;
  report_.history.push_back({at_seconds, epoch(), loss_.mean(), accuracy});
  display_.evaluated(state(at_seconds));
  return ok();
}

ProgressDisplay::State Run::state(double at_seconds) const {
  ProgressDisplay::State out;
  out.epoch = epoch();
  out.epochs = static_cast<double>(options_.epochs);
  out.seconds = at_seconds;
  if (options_.epochs > 0) out.done = out.epoch / out.epochs;
  if (options_.seconds_max) out.done = std::max(out.done, at_seconds / *options_.seconds_max);
  out.loss = loss_.mean();
  out.accuracy = report_.history.empty() ? -1 : report_.test_accuracy;
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
  report_.label_smoothing = options_.worker.label_smoothing;
  report_.seed = options_.seed;
  report_.kernels = dense_kernels().name;
  report_.optimizer = architecture_.optimizer();
  report_.model_version = architecture_.version();
  report_.train_loss = loss_.mean();
  report_.train_seconds = seconds(last_ns_ - first_ns_);
  if (report_.train_seconds > 0) {
    report_.samples_per_second = static_cast<double>(report_.samples) / report_.train_seconds;
  }
  report_.interrupted = outcome_.signal != 0;
}

}  // namespace

Result<std::unique_ptr<SharedControl>> SharedControl::make() {
  void* page = ::mmap(nullptr, sizeof(RunControl), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return errno_error("mmap");
  return std::unique_ptr<SharedControl>(new SharedControl(new (page) RunControl));
}

SharedControl::~SharedControl() { ::munmap(control_, sizeof(RunControl)); }

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
  Run run(dataset, architecture, control, options);
  return run.run();
}

}  // namespace gradfs::trainer
