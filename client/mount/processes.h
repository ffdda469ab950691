// What /proc tells about the process behind a FUSE request: enough to know whether a close means "finished".
//
// Reads only what is safe while the process waits for our answer (status, fdinfo, task, children); stat only
// of a process that is already exiting. maps may block while its owner is in execve, so writable_map() is for
// a thread that nobody waits for without a limit.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gradfs {

struct ProcessState {
  pid_t group = 0;       // thread group; 0: the process cannot be resolved
  bool exiting = false;  // its memory is gone
  int signal = 0;        // that ends it; 0: an ordinary exit, or not exiting
};
ProcessState process_state(pid_t thread);

// A signal that ends the thread's process is pending (the kernel turns deadly ones into SIGKILL). A thread
// that is not there is dying.
bool kill_is_pending(pid_t thread);

// `root` and all its descendants, at most `limit`.
std::vector<pid_t> process_tree(pid_t root, std::size_t limit);

// How many descriptors that may write the process has of the file `inode` on the filesystem whose mountinfo
// device is `device` ("0:57"); descriptors of a mount that we cannot see are counted.
unsigned write_descriptors_of(pid_t process, std::uint64_t inode, const std::string& device);

// The process has a shared writable map of the file `inode` on `device`.
bool has_writable_map(pid_t process, std::uint64_t inode, const std::string& device);

// "MAJOR:MINOR" of the topmost fuse.gradfs mount at this mount point; "" if there is none.
std::string device_of_mount(const std::string& mount_point);

}  // namespace gradfs
