#include "tools/fsctl/mount_control.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <filesystem>
#include <thread>

#include "client/lib/mount_path.h"
#include "fs/base/clock.h"
#include "fs/base/fd.h"
#include "tools/fsctl/output.h"

namespace gradfs::fsctl {
namespace {

namespace files = std::filesystem;

constexpr std::size_t kUsersMax = 5;
constexpr int kStackMax = 16;  // mounts one over the other

int probe(const std::string& path) {
  struct stat info{};
  struct statfs space{};
  if (::stat(path.c_str(), &info) != 0) return errno;
  return ::statfs(path.c_str(), &space) == 0 ? 0 : errno;
}

Result<bool> is_gradfs_at(const std::string& path) {
  GRADFS_TRY(const auto mounts, read_mountinfo());
  const auto found = find_mount_at(mounts, path);
  return found && found->is_gradfs();
}

bool is_below(const std::string& path, const std::string& folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

bool link_is_below(const files::path& link, const std::string& folder) {
  std::error_code failure;
  const files::path target = files::read_symlink(link, failure);
  return !failure && is_below(target.string(), folder);
}

// Reads links only: nothing on the mount is touched.
bool uses(const files::path& process, const std::string& folder) {
  if (link_is_below(process / "cwd", folder) || link_is_below(process / "root", folder)) return true;
  for (const char* links : {"fd", "map_files"}) {
    std::error_code failure;
    for (files::directory_iterator entry(process / links, failure), end; !failure && entry != end;
         entry.increment(failure)) {
      if (link_is_below(entry->path(), folder)) return true;
    }
  }
  return false;
}

}  // namespace

int run_in_child(const std::function<int()>& body, std::int64_t timeout_ns) {
  const pid_t child = ::fork();
  if (child < 0) return errno;
  if (child == 0) {
    ::close_range(3, ~0U, 0);
    ::_exit(body());
  }
  const std::int64_t deadline = real_now_ns() + timeout_ns;
  bool killed = false;
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child) return killed || !WIFEXITED(status) ? ETIMEDOUT : WEXITSTATUS(status);
    if (ended < 0 && errno != EINTR) return errno;
    if (real_now_ns() > deadline + kSecond_ns / 5) return ETIMEDOUT;  // it cannot even be killed: leave it
    if (real_now_ns() > deadline && !killed) {
      ::kill(child, SIGKILL);
      killed = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

Result<MountState> mount_state(const std::string& path, std::int64_t timeout_ns) {
  GRADFS_TRY(const bool mounted, is_gradfs_at(path));
  if (!mounted) return MountState::kNone;
  switch (run_in_child([&] { return probe(path); }, timeout_ns)) {
    case 0:
      return MountState::kWorks;
    case ENOTCONN:
    case ECONNABORTED:
      return MountState::kDead;
    default:
      return MountState::kSilent;
  }
}

Result<void> detach(const std::string& path) {
  for (int i = 0; i < kStackMax; ++i) {
    GRADFS_TRY(const bool mounted, is_gradfs_at(path));
    if (!mounted) return ok();
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
      return errno_error("cannot unmount " + path);
  }
  return Error(Errc::kBusy,
               "more than " + std::to_string(kStackMax) + " mounts lie over each other at " + path);
}

Result<void> unmount(const std::string& path, std::int64_t timeout_ns) {
  const std::int64_t deadline = real_now_ns() + timeout_ns;
  const auto body = [&] { return ::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0 ? 0 : errno; };
  bool told = false;
  for (;;) {
    const int failure = run_in_child(body, std::max(kSecond_ns / 2, deadline - real_now_ns()));
    if (failure == 0 || failure == EINVAL) return ok();
    if (failure == EPERM) return Error(Errc::kPermission, "only root may unmount " + path);
    if (failure != EBUSY || real_now_ns() > deadline) return detach(path);
    if (!told) {
      const std::string users = users_of(path);
      note(path + " is in use" + (users.empty() ? "" : " by " + users) +
           ": unmounting it lazily in a moment");
      told = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

std::string users_of(const std::string& path) {
  std::vector<std::string> users;
  std::error_code failure;
  for (files::directory_iterator entry("/proc", failure), end; !failure && entry != end;
       entry.increment(failure)) {
    const std::string pid = entry->path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(::getpid()))
      continue;
    if (!uses(entry->path(), path)) continue;
    const auto name = read_text_file(entry->path().string() + "/comm", 64);
    users.push_back((name ? name.value().substr(0, name.value().find('\n')) : "a process") + " (pid " + pid +
                    ")");
    if (users.size() == kUsersMax) break;
  }
  std::string out;
  for (const std::string& user : users) out += (out.empty() ? "" : ", ") + user;
  return out;
}

}  // namespace gradfs::fsctl
