// Crew: the processes of a run beside the supervisor: its workers, a launcher of theirs, a driver or a
// server.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trainer/child.h"
#include "trainer/exchange.h"
#include "trainer/records.h"

namespace gradfs::trainer {

// What a crew tells; called from its functions.
class CrewListener {
 public:
  virtual void on_push(const Record& record) = 0;
  // It said why it ends.
  virtual void on_failure(std::size_t worker, const std::string& why) = 0;
  // It has ended before its work did. how: "was killed by Killed"; "" if on_failure told why.
  virtual void on_lost(std::size_t worker, const std::string& how) = 0;
  virtual void on_service_lost(const std::string& how) = 0;

 protected:
  ~CrewListener() = default;
};

// One thread. Whatever still runs is killed by the destructor. All references must outlive it.
class Crew {
 public:
  // A worker's life in its process; returns the exit status.
  using Body = std::function<int(std::size_t worker, RecordWriter& records)>;

  Crew(Architecture& architecture, SharedControl& control, const SignalBlock& signals, CrewListener& listener)
      : architecture_(architecture), control_(control), signals_(signals), listener_(listener) {}

  // The driver or server, if the architecture has one, then the workers, which wait for go.
  Result<void> start(std::size_t workers, const Body& body);
  // Hears what there is to hear. Never waits.
  void poll();
  // Lets the driver or server end, for at most as long as it may take after the last worker; else kills it.
  void finish();
  void kill_workers();

  [[nodiscard]] bool ready() const;    // all workers
  [[nodiscard]] bool running() const;  // any worker
  [[nodiscard]] std::size_t size() const noexcept { return workers_.size(); }
  // Processes that run, and what those that have ended used.
  [[nodiscard]] std::vector<pid_t> pids() const;
  [[nodiscard]] double cpu_seconds() const noexcept { return cpu_seconds_; }

 private:
  struct Worker {
    ChildProcess process;  // none if it was launched
    RecordReader records;
    pid_t pid = -1;
    bool ready = false;
    bool done = false;    // it said so
    bool failed = false;  // likewise
    bool over = false;    // its process has ended
  };

  Result<void> start_service();
  Result<void> fork_workers(std::size_t workers, const Body& body);
  Result<void> launch_workers(std::size_t workers);
  void take_records(std::size_t index);
  void end_worker(std::size_t index, const std::string& how);
  void reap();
  void reap_launched(const ChildProcess::Ended& ended);
  [[nodiscard]] std::string last_words() const;

  Architecture& architecture_;
  SharedControl& control_;
  const SignalBlock& signals_;
  CrewListener& listener_;
  std::vector<Worker> workers_;
  ChildProcess service_;
  std::optional<RecordReader> service_records_;
  ChildProcess launcher_;
  UniqueFd launcher_output_;              // what it printed
  std::vector<UniqueFd> launched_pipes_;  // writing ends, which its workers open by our process's number
  double cpu_seconds_ = 0;
};

}  // namespace gradfs::trainer
