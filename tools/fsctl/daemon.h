// The daemons of a cluster: started in a session of their own, known by pid files, ended by signals.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::fsctl {

struct Daemon {
  std::string role;     // "master", "worker-0", "mount"
  std::string program;  // "gradfs-master"
  std::string mark;     // an argument that only this cluster's process has: its directory
  std::string pid_file;
  std::string log_file;
  std::vector<std::string> arguments;
};

// NAME beside this program, else in PATH; kNotFound.
Result<std::string> find_program(const std::string& name);

// A process that is neither gone nor a zombie.
bool is_alive(pid_t pid);
// The pid file's process, if it is alive and is that program with that mark: pids are used again.
std::optional<pid_t> running_pid(const Daemon& daemon);

// Starts it: own session, stdin /dev/null, stdout and stderr appended to the log; writes the pid file.
Result<pid_t> start(const Daemon& daemon);

// Polls `ready` until it says true. An error, with the last line of the log and where it is, if the process
// ends first or timeout_ns passes; then the process is ended and the pid file removed. log_offset: where the
// log began.
Result<void> wait_ready(const Daemon& daemon, pid_t pid, std::int64_t log_offset, std::int64_t timeout_ns,
                        const std::function<bool()>& ready);

bool wait_end(pid_t pid, std::int64_t timeout_ns);
// SIGTERM (after SIGCONT, for a stopped one), then SIGKILL after timeout_ns; removes the pid file.
// kTimeout: it does not even die of SIGKILL.
Result<void> end(const Daemon& daemon, pid_t pid, std::int64_t timeout_ns);

std::int64_t file_bytes(const std::string& path);
// The last line that is not empty, beyond the offset; "" if there is none.
std::string last_line(const std::string& path, std::int64_t offset);

}  // namespace gradfs::fsctl
