#include "tools/fsctl/daemon.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "fs/base/clock.h"
#include "fs/base/fd.h"

namespace gradfs::fsctl {
namespace {

constexpr std::int64_t kLogTail = 16 << 10;
constexpr int kExecFailed = 127;

void pause_briefly() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

std::vector<std::string> command_line(pid_t pid) {
  std::vector<std::string> out;
  const auto text = read_text_file("/proc/" + std::to_string(pid) + "/cmdline");
  if (!text) return out;
  for (std::size_t begin = 0; begin < text.value().size();) {
    const std::size_t end = std::min(text.value().find('\0', begin), text.value().size());
    out.push_back(text.value().substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// Only async-signal-safe calls: between fork and exec.
[[noreturn]] void become(const char* path, char* const* arguments, int input, int log) {
  ::setsid();
  ::dup2(input, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  ::close_range(3, ~0U, 0);
  struct sigaction by_default{};
  by_default.sa_handler = SIG_DFL;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD})
    ::sigaction(signal, &by_default, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (::chdir("/") == 0) ::execv(path, arguments);
  constexpr char kText[] = "cannot be executed\n";
  (void)!::write(STDERR_FILENO, kText, sizeof kText - 1);
  ::_exit(kExecFailed);
}

}  // namespace

Result<std::string> find_program(const std::string& name) {
  std::error_code failure;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (!failure) {
    const std::string beside = (self.parent_path() / name).string();
    if (::access(beside.c_str(), X_OK) == 0) return beside;
  }
  const char* variable = std::getenv("PATH");
  std::string folders = variable == nullptr ? "" : variable;
  while (!folders.empty()) {
    const std::size_t end = std::min(folders.find(':'), folders.size());
    const std::string candidate = folders.substr(0, end) + "/" + name;
    if (candidate.front() == '/' && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    folders.erase(0, end + 1);
  }
  return Error(Errc::kNotFound,
               "there is no program " + name + " beside fsctl or in PATH: build or install it");
}

bool is_alive(pid_t pid) {
  const auto stat = read_text_file("/proc/" + std::to_string(pid) + "/stat");
  if (!stat) return false;
  const std::size_t end = stat.value().rfind(") ");
  return end != std::string::npos && end + 2 < stat.value().size() &&
         std::string_view("ZXx").find(stat.value()[end + 2]) == std::string_view::npos;
}

std::optional<pid_t> running_pid(const Daemon& daemon) {
  const auto text = read_text_file(daemon.pid_file, 64);
  if (!text) return std::nullopt;
  const pid_t pid = static_cast<pid_t>(std::strtol(text.value().c_str(), nullptr, 10));
  if (pid <= 1 || !is_alive(pid)) return std::nullopt;
  const auto arguments = command_line(pid);
  if (arguments.empty() || std::filesystem::path(arguments.front()).filename() != daemon.program)
    return std::nullopt;
  if (std::find(arguments.begin(), arguments.end(), daemon.mark) == arguments.end()) return std::nullopt;
  return pid;
}

Result<pid_t> start(const Daemon& daemon) {
  GRADFS_TRY(std::string program, find_program(daemon.program));
  GRADFS_TRY(const UniqueFd input, open_file("/dev/null", O_RDWR));
  GRADFS_TRY(const UniqueFd log, open_file(daemon.log_file, O_WRONLY | O_CREAT | O_APPEND, 0644));
  std::vector<std::string> words{program};
  words.insert(words.end(), daemon.arguments.begin(), daemon.arguments.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) become(program.c_str(), arguments.data(), input.get(), log.get());
  if (auto written = replace_text_file(daemon.pid_file, std::to_string(pid) + "\n"); !written) {
    ::kill(pid, SIGKILL);
    wait_end(pid, kSecond_ns);
    return std::move(written).error();
  }
  return pid;
}

bool wait_end(pid_t pid, std::int64_t timeout_ns) {
  const std::int64_t deadline = real_now_ns() + timeout_ns;
  for (;;) {
    ::waitpid(pid, nullptr, WNOHANG);  // for our own children; others are reaped by their parents
    if (!is_alive(pid)) return true;
    if (real_now_ns() >= deadline) return false;
    pause_briefly();
  }
}

Result<void> end(const Daemon& daemon, pid_t pid, std::int64_t timeout_ns) {
  ::kill(pid, SIGTERM);
  ::kill(pid, SIGCONT);
  if (!wait_end(pid, timeout_ns)) {
    ::kill(pid, SIGKILL);
    if (!wait_end(pid, 5 * kSecond_ns)) {
      return Error(Errc::kTimeout,
                   daemon.program + " (pid " + std::to_string(pid) + ") does not end, not even by SIGKILL");
    }
  }
  ::unlink(daemon.pid_file.c_str());
  return ok();
}

Result<void> wait_ready(const Daemon& daemon, pid_t pid, std::int64_t log_offset, std::int64_t timeout_ns,
                        const std::function<bool()>& ready) {
  const std::int64_t deadline = real_now_ns() + timeout_ns;
  const auto complain = [&](const std::string& what) {
    const std::string line = last_line(daemon.log_file, log_offset);
    return Error(Errc::kUnavailable, daemon.program + " " + what + (line.empty() ? "" : ": " + line) +
                                         " (log: " + daemon.log_file + ")");
  };
  for (;;) {
    if (wait_end(pid, 0)) {
      ::unlink(daemon.pid_file.c_str());
      return complain("has ended");
    }
    if (ready()) return ok();
    if (real_now_ns() >= deadline) break;
    pause_briefly();
  }
  const Error error = complain("is not ready after " + std::to_string(timeout_ns / kSecond_ns) + " s");
  GRADFS_TRYV(end(daemon, pid, 2 * kSecond_ns));
  return error;
}

std::int64_t file_bytes(const std::string& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 ? info.st_size : 0;
}

std::string last_line(const std::string& path, std::int64_t offset) {
  const std::int64_t size = file_bytes(path);
  const std::int64_t begin = std::max(offset, size - kLogTail);
  auto fd = open_file(path, O_RDONLY);
  if (!fd || begin >= size) return "";
  std::string text(static_cast<std::size_t>(size - begin), '\0');
  if (!read_fully_at(fd.value().get(), std::as_writable_bytes(std::span(text)),
                     static_cast<std::size_t>(begin)))
    return "";
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  const std::size_t newline = text.rfind('\n');
  return newline == std::string::npos ? text : text.substr(newline + 1);
}

}  // namespace gradfs::fsctl
