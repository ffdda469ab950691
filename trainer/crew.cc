#include "trainer/crew.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fs/base/clock.h"

namespace gradfs::trainer {
namespace {

constexpr std::int64_t kServiceGrace_ns = 10 * kSecond_ns;
constexpr unsigned kServicePoll_us = 2000;
constexpr std::size_t kOutputBytes = 64 << 10;

double cpu_seconds_of(const rusage& usage) {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

Result<void> Crew::start(std::size_t workers, const Body& body) {
  GRADFS_TRYV(architecture_.prepare());
  GRADFS_TRYV(start_service());
  return architecture_.launches_workers() ? launch_workers(workers) : fork_workers(workers, body);
}

Result<void> Crew::start_service() {
  if (architecture_.service().empty()) return ok();
  GRADFS_TRY(RecordPipe pipe, make_record_pipe());
  const auto body = [&] {
    RecordWriter records(std::move(pipe.writer));
    const Result<void> served = architecture_.serve();
    if (!served) records.fail(served.error().message());
    return served ? 0 : 1;
  };
  GRADFS_TRY(service_, ChildProcess::fork("train-" + architecture_.service(), signals_, body));
  service_records_.emplace(std::move(pipe.reader));
  return ok();
}

Result<void> Crew::fork_workers(std::size_t workers, const Body& body) {
  for (std::size_t index = 0; index < workers; ++index) {
    GRADFS_TRY(RecordPipe pipe, make_record_pipe());
    const auto life = [&] {
      RecordWriter records(std::move(pipe.writer));
      return body(index, records);
    };
    GRADFS_TRY(ChildProcess process, ChildProcess::fork("train-w" + std::to_string(index), signals_, life));
    const pid_t pid = process.pid();
    workers_.push_back({std::move(process), RecordReader(std::move(pipe.reader)), pid});
  }
  return ok();
}

Result<void> Crew::launch_workers(std::size_t workers) {
  std::vector<int> record_fds;
  for (std::size_t index = 0; index < workers; ++index) {
    GRADFS_TRY(RecordPipe pipe, make_record_pipe());
    record_fds.push_back(pipe.writer.get());
    launched_pipes_.push_back(std::move(pipe.writer));
    workers_.push_back({ChildProcess(), RecordReader(std::move(pipe.reader))});
  }
  GRADFS_TRY(const WorkerLaunch launch, architecture_.launch(record_fds));
  launcher_output_ = UniqueFd(::memfd_create("gradfs-train-launch", MFD_CLOEXEC));
  if (!launcher_output_) return errno_error("memfd_create");
  GRADFS_TRY(launcher_,
             ChildProcess::execute(launch.command, launch.environment, signals_, launcher_output_));
  return ok();
}

void Crew::poll() {
  for (std::size_t index = 0; index < workers_.size(); ++index) take_records(index);
  reap();
}

void Crew::take_records(std::size_t index) {
  Worker& worker = workers_[index];
  Record record;
  while (worker.records.read(record)) {
    switch (record.kind) {
      case RecordKind::kReady:
        worker.ready = true;
        worker.pid = record.pid;
        break;
      case RecordKind::kPush:
        listener_.on_push(record);
        break;
      case RecordKind::kDone:
        worker.done = true;
        break;
      case RecordKind::kFailed:
        worker.failed = true;
        record.text[sizeof record.text - 1] = '\0';
        listener_.on_failure(index, record.text);
        break;
    }
  }
}

void Crew::end_worker(std::size_t index, const std::string& how) {
  Worker& worker = workers_[index];
  worker.over = true;
  control_->gone[index].store(true, std::memory_order_release);
  take_records(index);  // what it said last
  if (!worker.done) listener_.on_lost(index, worker.failed ? "" : how);
}

void Crew::reap() {
  for (std::size_t index = 0; index < workers_.size(); ++index) {
    if (const auto ended = workers_[index].process.reap()) {
      cpu_seconds_ += cpu_seconds_of(ended->usage);
      end_worker(index, describe_end(ended->wait_status));
    }
  }
  if (const auto ended = launcher_.reap()) reap_launched(*ended);
  if (const auto ended = service_.reap()) {
    cpu_seconds_ += cpu_seconds_of(ended->usage);
    if (ended->wait_status == 0) return;  // every worker has left it
    std::string how = describe_end(ended->wait_status);
    Record record;
    if (service_records_->read(record)) how = "ends: " + std::string(record.text);
    listener_.on_service_lost(how);
  }
}

void Crew::reap_launched(const ChildProcess::Ended& ended) {
  cpu_seconds_ += cpu_seconds_of(ended.usage);
  const std::string words = last_words();
  for (std::size_t index = 0; index < workers_.size(); ++index) {
    end_worker(index, words.empty() ? describe_end(ended.wait_status) : words);
  }
}

// The line of the launcher's output that says what went wrong: the first that names a process or an error.
std::string Crew::last_words() const {
  std::array<char, kOutputBytes> text{};
  const ssize_t size = ::pread(launcher_output_.get(), text.data(), text.size(), 0);
  std::string_view rest(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    for (const char* sign : {"exited on signal", "gradfs-train", "rror", "No such", "cannot"}) {
      if (line.find(sign) != std::string_view::npos) return "ended: " + std::string(line);
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return "";
}

void Crew::finish() {
  const std::int64_t deadline_ns = real_now_ns() + kServiceGrace_ns;
  while (service_.running() && real_now_ns() < deadline_ns) {
    reap();
    if (service_.running()) ::usleep(kServicePoll_us);
  }
  service_.kill();
  while (service_.running()) reap();
}

void Crew::kill_workers() {
  for (const Worker& worker : workers_) worker.process.kill();
  launcher_.kill();
}

bool Crew::ready() const { return std::ranges::all_of(workers_, &Worker::ready); }

bool Crew::running() const {
  return std::ranges::any_of(workers_, [](const Worker& worker) { return !worker.over; });
}

std::vector<pid_t> Crew::pids() const {
  std::vector<pid_t> out;
  for (const Worker& worker : workers_) {
    if (!worker.over && worker.pid > 0) out.push_back(worker.pid);
  }
  for (const ChildProcess* process : {&service_, &launcher_}) {
    if (process->running()) out.push_back(process->pid());
  }
  return out;
}

}  // namespace gradfs::trainer
