#include "client/mount/processes.h"

#include <fcntl.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace gradfs {
namespace {

std::string proc_path(pid_t pid, const std::string& what) {
  return "/proc/" + std::to_string(pid) + "/" + what;
}

bool decimal(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// The number that a field of /proc begins with, after blanks; 0 if there is none.
long to_number(const std::string& text) { return std::strtol(text.c_str(), nullptr, 10); }

// Field 52 of stat, exit_code, counted from behind the command's closing parenthesis.
int exit_signal(pid_t thread) {
  std::ifstream in(proc_path(thread, "stat"));
  std::string line;
  std::getline(in, line);
  const auto end = line.rfind(')');
  if (end == std::string::npos) return 0;
  std::istringstream fields(line.substr(end + 1));
  std::string field;
  std::string last;
  while (fields >> field) last = field;
  return static_cast<int>(to_number(last)) & 0x7f;
}

// The device of a mount of our own namespace, by its id; "" for one of another namespace.
std::string device_of_id(const std::string& mount_id) {
  std::ifstream in("/proc/self/mountinfo");
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string id;
    std::string parent;
    std::string device;
    fields >> id >> parent >> device;
    if (id == mount_id) return device;
  }
  return "";
}

template <class Visit>
void for_each_number(const std::string& directory, Visit visit) {
  std::error_code ec;
  std::filesystem::directory_iterator it(directory, ec);
  for (; !ec && it != std::filesystem::directory_iterator(); it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (decimal(name)) visit(name);
  }
}

}  // namespace

ProcessState process_state(pid_t thread) {
  ProcessState state;
  std::ifstream in(proc_path(thread, "status"));
  std::string line;
  bool has_memory = false;
  while (std::getline(in, line)) {
    if (line.starts_with("Tgid:")) state.group = static_cast<pid_t>(to_number(line.substr(5)));
    if (line.starts_with("VmSize:")) has_memory = true;
  }
  if (state.group == 0) return state;
  state.exiting = !has_memory;
  if (state.exiting) state.signal = exit_signal(thread);
  return state;
}

bool kill_is_pending(pid_t thread) {
  std::ifstream in(proc_path(thread, "status"));
  std::string line;
  bool found = false;
  while (std::getline(in, line)) {
    if (!line.starts_with("SigPnd:") && !line.starts_with("ShdPnd:")) continue;
    found = true;
    if ((std::strtoull(line.c_str() + 7, nullptr, 16) & (1ULL << (SIGKILL - 1))) != 0) return true;
  }
  return !found;
}

std::vector<pid_t> process_tree(pid_t root, std::size_t limit) {
  std::vector<pid_t> found{root};
  for (std::size_t i = 0; i < found.size() && found.size() < limit; ++i) {
    for_each_number(proc_path(found[i], "task"), [&](const std::string& thread) {
      std::ifstream in(proc_path(found[i], "task/" + thread + "/children"));
      pid_t child = 0;
      while (found.size() < limit && in >> child) found.push_back(child);
    });
  }
  return found;
}

unsigned write_descriptors_of(pid_t process, std::uint64_t inode, const std::string& device) {
  unsigned count = 0;
  const std::string wanted = std::to_string(inode);
  for_each_number(proc_path(process, "fdinfo"), [&](const std::string& fd) {
    std::ifstream in(proc_path(process, "fdinfo/" + fd));
    std::string key;
    std::string value;
    std::string mount_id;
    while (in >> key >> value) {
      if (key == "flags:" && (std::strtoul(value.c_str(), nullptr, 8) & O_ACCMODE) == O_RDONLY) return;
      if (key == "mnt_id:") mount_id = value;
      if (key != "ino:") continue;
      if (value != wanted) return;
      const std::string its_device = device_of_id(mount_id);
      if (its_device.empty() || its_device == device) ++count;
      return;
    }
  });
  return count;
}

bool has_writable_map(pid_t process, std::uint64_t inode, const std::string& device) {
  std::ifstream in(proc_path(process, "maps"));
  std::string line;
  const auto colon = device.find(':');
  const unsigned long major = std::strtoul(device.c_str(), nullptr, 10);
  const unsigned long minor =
      colon == std::string::npos ? 0 : std::strtoul(device.c_str() + colon + 1, nullptr, 10);
  while (std::getline(in, line)) {
    char permissions[8] = {};
    unsigned its_major = 0;
    unsigned its_minor = 0;
    unsigned long its_inode = 0;
    if (std::sscanf(line.c_str(), "%*s %7s %*s %x:%x %lu", permissions, &its_major, &its_minor, &its_inode) !=
        4)
      continue;
    // For a passthrough map the kernel shows the identity of the mounted file, not of its backing image.
    if (its_inode == inode && its_major == major && its_minor == minor && permissions[1] == 'w' &&
        permissions[3] == 's') {
      return true;
    }
  }
  return false;
}

std::string device_of_mount(const std::string& mount_point) {
  std::ifstream in("/proc/self/mountinfo");
  std::string line;
  std::string found;
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string id;
    std::string parent;
    std::string device;
    std::string root;
    std::string point;
    fields >> id >> parent >> device >> root >> point;
    if (point == mount_point && line.find(" - fuse.gradfs ") != std::string::npos) found = device;
  }
  return found;
}

}  // namespace gradfs
