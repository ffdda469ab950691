#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "client/lib/mount_path.h"
#include "fs/base/clock.h"
#include "fs/base/size.h"
#include "tools/fsctl/cluster.h"
#include "tools/fsctl/cluster_daemons.h"
#include "tools/fsctl/mount_control.h"
#include "tools/fsctl/output.h"

namespace gradfs::fsctl {
namespace {

constexpr std::int64_t kBusyTimeout_ns = 3 * kSecond_ns;
constexpr std::int64_t kEndTimeout_ns = 10 * kSecond_ns;

Result<bool> end_daemon(const Daemon& daemon) {
  const auto pid = running_pid(daemon);
  if (!pid) {
    ::unlink(daemon.pid_file.c_str());
    return false;
  }
  GRADFS_TRYV(end(daemon, *pid, kEndTimeout_ns));
  std::printf("%-8s  stopped\n", daemon.role.c_str());
  return true;
}

// The mount there is of this cluster, even if its pid file is lost.
bool is_of(const ClusterOptions& options) {
  const auto mounts = read_mountinfo();
  const auto found = mounts ? find_mount_at(mounts.value(), options.mount) : std::nullopt;
  return found && (found->source == options.listen || found->source.starts_with(options.listen + ":/"));
}

// Unmounts, then waits for the daemon, which ends by itself. true: something was there.
Result<bool> end_mount(const ClusterDirectory& directory, const ClusterOptions& options) {
  const Daemon daemon = mount_daemon(directory, options);
  const auto pid = running_pid(daemon);
  bool was_there = false;
  if (!options.mount.empty()) {
    GRADFS_TRY(const MountState state, mount_state(options.mount, kSecond_ns));
    const bool is_stale = state == MountState::kDead || state == MountState::kSilent;
    if (state == MountState::kWorks && (pid || is_of(options))) {
      GRADFS_TRYV(unmount(options.mount, kBusyTimeout_ns));
      if (pid) wait_end(*pid, kSecond_ns);
      was_there = true;
    } else if (is_stale) {
      GRADFS_TRYV(detach(options.mount));
    }
    was_there = was_there || is_stale;
  }
  GRADFS_TRY(const bool ended, end_daemon(daemon));
  if (pid && !ended) std::printf("%-8s  stopped\n", daemon.role.c_str());
  if (pid && !options.mount.empty()) {
    GRADFS_TRY(const MountState state, mount_state(options.mount, kSecond_ns));
    if (state == MountState::kDead) {
      GRADFS_TRYV(detach(options.mount));
    }
  }
  return was_there || pid.has_value();
}

bool confirmed(const ClusterDirectory& directory) {
  if (::isatty(STDIN_FILENO) == 0) return true;
  std::printf("delete all data of the cluster in %s? [y/N] ", directory.path().c_str());
  std::fflush(stdout);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

Result<void> take_down(const ClusterDirectory& directory, const DownArguments& arguments) {
  GRADFS_TRY(const auto remembered, directory.load());
  const ClusterOptions options = remembered.value_or(ClusterOptions{});
  GRADFS_TRY(const bool mount, end_mount(directory, options));
  GRADFS_TRY(const bool worker, end_daemon(worker_daemon(directory, options)));
  GRADFS_TRY(const bool master, end_daemon(master_daemon(directory, options)));
  if (!mount && !worker && !master) std::printf("nothing runs in %s\n", directory.path().c_str());
  const auto held = held_memory(directory);
  if (arguments.purge) {
    GRADFS_TRYV(purge(directory));
    std::printf("purged: %s of memory are free, the data is deleted\n",
                format_size(held ? held->bytes : 0).c_str());
  } else if (held) {
    std::printf("the data stays: %s of memory in %s ('fsctl cluster down --purge' frees it)\n",
                format_size(held->bytes).c_str(), held->path.c_str());
  }
  return ok();
}

}  // namespace

int cluster_down(const DownArguments& arguments) {
  const auto directory = ClusterDirectory::open(arguments.directory, false);
  if (!directory && directory.error().code == Errc::kNotFound) {
    std::printf("nothing runs in %s\n", arguments.directory.c_str());
    return 0;
  }
  if (!directory) return fail(directory.error());
  if (arguments.purge && !arguments.yes && !confirmed(directory.value())) {
    return fail(Error(Errc::kCancelled, "nothing was done"));
  }
  const auto done = take_down(directory.value(), arguments);
  return done ? 0 : fail(done.error());
}

}  // namespace gradfs::fsctl
