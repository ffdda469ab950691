// Processes that the supervisor starts, and the signals that it takes from a descriptor.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <csignal>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/fd.h"
#include "fs/base/result.h"
#include "trainer/records.h"

namespace gradfs::trainer {

// Blocks SIGINT, SIGTERM, SIGHUP and SIGCHLD, and restores the mask when it goes.
class SignalBlock {
 public:
  SignalBlock();
  ~SignalBlock() { restore(); }
  SignalBlock(const SignalBlock&) = delete;
  SignalBlock& operator=(const SignalBlock&) = delete;
  void restore() const { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  // A signalfd of them that never waits.
  [[nodiscard]] Result<UniqueFd> descriptor() const;

 private:
  sigset_t blocked_{};
  sigset_t before_{};
};

// How a process ended, in words: "was killed by Killed", "ended with status 1".
std::string describe_end(int wait_status);

// One process; killed and waited for by the destructor if it still runs. Movable.
class ChildProcess {
 public:
  struct Ended {
    int wait_status = 0;
    rusage usage{};
  };

  // Forks a process called `name` that runs body and ends with its status, without the destructors and
  // buffers that belong to the parent. It ignores what a terminal sends (the supervisor tells it what to do),
  // and dies with its parent.
  static Result<ChildProcess> fork(const std::string& name, const SignalBlock& signals,
                                   const std::function<int()>& body);
  // Starts a program in a session of its own, with environment (NAME=VALUE) beside the caller's; what it
  // prints goes to the file output.
  static Result<ChildProcess> execute(const std::vector<std::string>& command,
                                      const std::vector<std::string>& environment, const SignalBlock& signals,
                                      const UniqueFd& output);
  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  [[nodiscard]] bool running() const noexcept { return pid_ > 0; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void kill() const {
    if (running()) ::kill(pid_, SIGKILL);
  }
  // Its end, once, if it has ended. Never waits.
  std::optional<Ended> reap();

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;
};

}  // namespace gradfs::trainer
