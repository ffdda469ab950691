#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "client/lib/endpoints.h"
#include "client/lib/mount_path.h"
#include "fs/base/clock.h"
#include "fs/base/size.h"
#include "tools/fsctl/cluster.h"
#include "tools/fsctl/cluster_daemons.h"
#include "tools/fsctl/mount_control.h"
#include "tools/fsctl/output.h"

namespace gradfs::fsctl {
namespace {

namespace files = std::filesystem;

constexpr std::uint64_t kMemoryMin_bytes = 1 << 20;
constexpr std::int64_t kReadyTimeout_ns = 60 * kSecond_ns;  // a worker may have pushes to apply again
constexpr std::int64_t kMountProbe_ns = 3 * kSecond_ns;
constexpr std::int64_t kEndTimeout_ns = 5 * kSecond_ns;

// Absolute, symbolic links resolved, without touching what may be mounted there.
Result<std::string> mount_point_of(const std::string& path) {
  std::error_code failure;
  const std::string absolute = normal_path(files::absolute(path, failure).string());
  if (failure) return errno_error(path, failure.value());
  GRADFS_TRY(const auto mounts, read_mountinfo());
  if (find_mount_at(mounts, absolute)) return absolute;
  const std::string parent = files::weakly_canonical(files::path(absolute).parent_path(), failure).string();
  if (failure) return errno_error(path, failure.value());
  const std::string point = normal_path(parent + "/" + files::path(absolute).filename().string());
  if (find_mount_at(mounts, point)) return point;
  const std::string real = files::weakly_canonical(point, failure).string();
  if (failure) return errno_error(path, failure.value());
  return real;
}

// An error with kInvalid is wrong usage.
Result<ClusterOptions> merge_options(const UpArguments& arguments,
                                     const std::optional<ClusterOptions>& remembered) {
  ClusterOptions options = remembered.value_or(ClusterOptions{});
  const char* variable = std::getenv("GRADFS_MASTER");
  if (!remembered || (variable != nullptr && *variable != '\0')) {
    GRADFS_TRY(options.listen, master_from_environment());
  }
  if (arguments.mount) {
    GRADFS_TRY(options.mount, mount_point_of(*arguments.mount));
  }
  options.workers = arguments.workers.value_or(options.workers);
  options.memory = arguments.memory.value_or(options.memory);
  options.passthrough = arguments.passthrough.value_or(options.passthrough);
  if (options.mount.empty()) return Error(Errc::kInvalid, "say where to mount: --mount DIRECTORY");
  if (options.mount == "/") return Error(Errc::kInvalid, "--mount /: choose another directory");
  if (options.workers != 1) {
    return Error(Errc::kInvalid, "--workers " + std::to_string(options.workers) +
                                     ": only 1 worker is possible in this version");
  }
  GRADFS_TRY(const std::uint64_t memory, parse_size(options.memory));
  if (memory < kMemoryMin_bytes) {
    return Error(Errc::kInvalid, "--memory " + options.memory + ": a worker needs at least 1MiB");
  }
  return options;
}

// Those that run keep the options they were started with.
Result<void> check_running(const ClusterDirectory& directory, const ClusterOptions& before,
                           const ClusterOptions& now) {
  const std::string undo = ": first run 'fsctl cluster down --dir " + directory.path() + "'";
  if (running_pid(master_daemon(directory, before)) && before.listen != now.listen) {
    return Error(Errc::kBusy, "the master of " + directory.path() + " listens at " + before.listen +
                                  ": set GRADFS_MASTER to that, or" + undo.substr(1));
  }
  if (running_pid(mount_daemon(directory, before)) && before.mount != now.mount) {
    return Error(Errc::kBusy, "the cluster is mounted at " + before.mount + undo);
  }
  if (running_pid(worker_daemon(directory, before)) && before.memory != now.memory) {
    note("worker-0 runs with --memory " + before.memory + "; " + now.memory + " holds from its next start");
  }
  if (running_pid(mount_daemon(directory, before)) && before.passthrough != now.passthrough) {
    note("the mount runs with passthrough=" + before.passthrough + "; " + now.passthrough +
         " holds from its next start");
  }
  return ok();
}

class Starter {
 public:
  Starter(const ClusterDirectory& directory, ClusterOptions options)
      : directory_(directory), options_(std::move(options)) {}

  Result<void> start_all() {
    GRADFS_TRYV(start_master());
    GRADFS_TRYV(start_worker());
    return start_mount();
  }
  [[nodiscard]] bool started_any() const { return started_any_; }

 private:
  void say(const Daemon& daemon, pid_t pid, bool started, const std::string& where) {
    std::printf("%-8s  %s  pid %d  %s\n", daemon.role.c_str(), started ? "started" : "running",
                static_cast<int>(pid), where.c_str());
    std::fflush(stdout);
    started_any_ = started_any_ || started;
  }

  Result<void> start_master() {
    const Daemon daemon = master_daemon(directory_, options_);
    const auto answers = [&] { return master_answers(options_.listen); };
    if (const auto pid = running_pid(daemon)) {
      GRADFS_TRYV(wait_running(daemon, answers));
      say(daemon, *pid, false, options_.listen);
      return ok();
    }
    if (is_listening(options_.listen)) {
      return Error(Errc::kBusy, "something else listens at " + options_.listen +
                                    ": stop it, or set GRADFS_MASTER to another HOST:PORT");
    }
    const std::int64_t log_offset = file_bytes(daemon.log_file);
    GRADFS_TRY(const pid_t pid, start(daemon));
    GRADFS_TRYV(wait_ready(daemon, pid, log_offset, kReadyTimeout_ns, answers));
    say(daemon, pid, true, options_.listen);
    return ok();
  }

  Result<void> start_worker() {
    const Daemon daemon = worker_daemon(directory_, options_);
    const auto before = find_worker(directory_, options_.listen);
    const auto is_ready = [&](bool is_new) {
      const auto worker = find_worker(directory_, options_.listen);
      if (!worker || !worker->alive()) return false;
      if (is_new && before && worker->incarnation() == before->incarnation()) return false;
      return worker_answers(worker->address());
    };
    if (const auto pid = running_pid(daemon)) {
      GRADFS_TRYV(wait_running(daemon, [&] { return master_has_ended() || is_ready(false); }));
      GRADFS_TRYV(check_master());
      say(daemon, *pid, false, daemon.mark);
      return ok();
    }
    const std::int64_t log_offset = file_bytes(daemon.log_file);
    GRADFS_TRY(const pid_t pid, start(daemon));
    GRADFS_TRYV(wait_ready(daemon, pid, log_offset, kReadyTimeout_ns,
                           [&] { return master_has_ended() || is_ready(true); }));
    GRADFS_TRYV(check_master());
    say(daemon, pid, true, daemon.mark);
    return ok();
  }

  Result<void> start_mount() {
    const Daemon daemon = mount_daemon(directory_, options_);
    auto pid = running_pid(daemon);
    if (pid) {
      GRADFS_TRY(const bool usable, keep_mount(daemon, *pid));
      if (usable) {
        say(daemon, *pid, false, options_.mount);
        return ok();
      }
    }
    GRADFS_TRYV(clear_mount_point());
    const std::int64_t log_offset = file_bytes(daemon.log_file);
    GRADFS_TRY(pid, start(daemon));
    GRADFS_TRYV(wait_ready(daemon, *pid, log_offset, kReadyTimeout_ns,
                           [&] { return master_has_ended() || is_mounted(); }));
    GRADFS_TRYV(check_master());
    say(daemon, *pid, true, options_.mount);
    return ok();
  }

  // Nothing else comes up without it, however long one waits.
  [[nodiscard]] bool master_has_ended() const { return !running_pid(master_daemon(directory_, options_)); }
  [[nodiscard]] Result<void> check_master() const {
    return master_has_ended() ? Result<void>(ended(master_daemon(directory_, options_))) : ok();
  }
  static Error ended(const Daemon& daemon) {
    return {Errc::kUnavailable, daemon.program + " has ended: " + last_line(daemon.log_file, 0) +
                                    " (log: " + daemon.log_file + "); run this command again"};
  }

  bool is_mounted() {
    const auto state = mount_state(options_.mount, kMountProbe_ns);
    return state && state.value() == MountState::kWorks;
  }

  // For a process that has been running before: it is left alone if it does not answer in time.
  static Result<void> wait_running(const Daemon& daemon, const std::function<bool()>& ready) {
    const std::int64_t deadline = real_now_ns() + kReadyTimeout_ns;
    while (running_pid(daemon)) {
      if (ready()) return ok();
      if (real_now_ns() > deadline) {
        return Error(Errc::kTimeout, daemon.program + " runs but does not answer; see " + daemon.log_file +
                                         ", or end it with 'fsctl cluster down'");
      }
    }
    return ended(daemon);
  }

  // false: the daemon had lost its mount and has been ended.
  Result<bool> keep_mount(const Daemon& daemon, pid_t pid) {
    const std::int64_t deadline = real_now_ns() + kReadyTimeout_ns / 3;
    while (is_alive(pid)) {
      GRADFS_TRY(const MountState state, mount_state(options_.mount, kMountProbe_ns));
      if (state == MountState::kWorks) return true;
      GRADFS_TRYV(check_master());
      if (state != MountState::kSilent) {  // unmounted: the daemon is about to end
        if (wait_end(pid, kSecond_ns)) break;
        GRADFS_TRYV(end(daemon, pid, kEndTimeout_ns));
        break;
      }
      if (real_now_ns() > deadline) {
        return Error(Errc::kTimeout, "the mount at " + options_.mount + " does not answer; see " +
                                         daemon.log_file + ", or end it with 'fsctl cluster down'");
      }
    }
    return false;
  }

  // A stale mount goes; a directory is made.
  Result<void> clear_mount_point() {
    GRADFS_TRY(const MountState state, mount_state(options_.mount, kMountProbe_ns));
    if (state == MountState::kWorks) {
      return Error(Errc::kBusy, "another gradfs is mounted at " + options_.mount +
                                    ": umount it, or choose another --mount");
    }
    if (state != MountState::kNone) {
      note("taking away the stale mount at " + options_.mount);
      GRADFS_TRYV(detach(options_.mount));
    }
    std::error_code failure;
    files::create_directories(options_.mount, failure);
    if (failure || !files::is_directory(options_.mount, failure)) {
      return Error(Errc::kInvalid, options_.mount + " cannot be made, or is not a directory" +
                                       (failure ? ": " + failure.message() : "") +
                                       "; choose another --mount");
    }
    return ok();
  }

  const ClusterDirectory& directory_;
  const ClusterOptions options_;
  bool started_any_ = false;
};

}  // namespace

int cluster_up(const UpArguments& arguments) {
  auto directory = ClusterDirectory::open(arguments.directory, true);
  if (!directory) return fail(directory.error());
  const auto remembered = directory.value().load();
  if (!remembered) return fail(remembered.error());
  const auto options = merge_options(arguments, remembered.value());
  if (!options)
    return options.error().code == Errc::kInvalid ? fail_usage(options.error().detail)
                                                  : fail(options.error());
  if (remembered.value()) {
    const auto fits = check_running(directory.value(), *remembered.value(), options.value());
    if (!fits) return fail(fits.error());
  }
  if (const auto saved = directory.value().save(options.value()); !saved) return fail(saved.error());

  Starter starter(directory.value(), options.value());
  if (const auto started = starter.start_all(); !started) return fail(started.error());
  std::printf("%s\n", starter.started_any() ? "the cluster is up" : "the cluster was up already");
  if (options.value().listen != kDefaultMaster && std::getenv("GRADFS_MASTER") == nullptr) {
    std::printf("for other commands: export GRADFS_MASTER=%s\n", options.value().listen.c_str());
  }
  return 0;
}

}  // namespace gradfs::fsctl
