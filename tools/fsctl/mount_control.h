// Mounts from outside: whether one works, who uses it, and taking it away. A dead or stuck daemon may block
// any call on its mount, so these are made in a child process with a deadline.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "fs/base/result.h"

namespace gradfs::fsctl {

// Runs `body` in a child, which holds none of our descriptors; returns the errno that body returns, or
// ETIMEDOUT.
int run_in_child(const std::function<int()>& body, std::int64_t timeout_ns);

enum class MountState {
  kNone,  // no gradfs is mounted there
  kWorks,
  kDead,    // its daemon has ended
  kSilent,  // no answer in time, or an error: the daemon, the master or the worker is in trouble
};
// path: absolute, without symbolic links.
Result<MountState> mount_state(const std::string& path, std::int64_t timeout_ns);

// Unmounts the topmost gradfs at `path`. Busy: tries until timeout_ns, says on stderr who uses it, and
// detaches it then.
Result<void> unmount(const std::string& path, std::int64_t timeout_ns);
// Takes all gradfs mounts at `path` out of the tree at once.
Result<void> detach(const std::string& path);

// "python3 (pid 12), bash (pid 7)": processes with a working directory, an open file or a map below the path.
std::string users_of(const std::string& path);

}  // namespace gradfs::fsctl
