#include "trainer/child.h"

#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace gradfs::trainer {
namespace {

constexpr int kNoProgram = 127;  // as shells say it

// In the child, before anything else.
void begin(pid_t parent, const SignalBlock& signals) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGTERM, SIG_DFL);
  ::signal(SIGPIPE, SIG_IGN);
  signals.restore();
}

[[noreturn]] void become(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                         const UniqueFd& output) {
  ::setsid();
  ::dup2(output.get(), STDOUT_FILENO);
  ::dup2(output.get(), STDERR_FILENO);
  for (const std::string& entry : environment) ::putenv(const_cast<char*>(entry.c_str()));
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  ::dprintf(STDERR_FILENO, "%s: %s\n", argv[0], std::strerror(errno));
  ::_exit(kNoProgram);
}

}  // namespace

SignalBlock::SignalBlock() {
  sigemptyset(&blocked_);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&blocked_, number);
  ::sigprocmask(SIG_BLOCK, &blocked_, &before_);
}

Result<UniqueFd> SignalBlock::descriptor() const {
  UniqueFd fd(::signalfd(-1, &blocked_, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return errno_error("signalfd");
  return fd;
}

std::string describe_end(int wait_status) {
  if (WIFSIGNALED(wait_status)) return std::string("was killed by ") + ::strsignal(WTERMSIG(wait_status));
  return "ended with status " + std::to_string(WEXITSTATUS(wait_status));
}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

ChildProcess::~ChildProcess() {
  if (!running()) return;
  kill();
  ::waitpid(pid_, nullptr, 0);
}

Result<ChildProcess> ChildProcess::fork(const std::string& name, const SignalBlock& signals,
                                        const std::function<int()>& body) {
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) {
    ::prctl(PR_SET_NAME, name.c_str());
    begin(parent, signals);
    ::_exit(body());
  }
  return ChildProcess(pid);
}

Result<ChildProcess> ChildProcess::execute(const std::vector<std::string>& command,
                                           const std::vector<std::string>& environment,
                                           const SignalBlock& signals, const UniqueFd& output) {
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) {
    begin(parent, signals);
    become(command, environment, output);
  }
  return ChildProcess(pid);
}

std::optional<ChildProcess::Ended> ChildProcess::reap() {
  Ended ended;
  if (!running() || ::wait4(pid_, &ended.wait_status, WNOHANG, &ended.usage) != pid_) return std::nullopt;
  pid_ = -1;
  return ended;
}

}  // namespace gradfs::trainer
