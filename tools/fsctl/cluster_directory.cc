#include "tools/fsctl/cluster_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <toml++/toml.h>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

#include "client/lib/mount_path.h"
#include "fs/base/clock.h"

namespace gradfs::fsctl {
namespace {

namespace files = std::filesystem;

constexpr std::int64_t kLockTimeout_ns = 90 * kSecond_ns;
constexpr std::string_view kShmPrefix = "/dev/shm/gradfs-";

// The lock of the directory that is there now: a purge may take the file away while we wait for it.
Result<UniqueFd> take_lock(const std::string& path) {
  const std::int64_t deadline = real_now_ns() + kLockTimeout_ns;
  while (real_now_ns() < deadline) {
    GRADFS_TRY(UniqueFd lock, open_file(path, O_RDWR | O_CREAT, 0600));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
      struct stat held{};
      struct stat named{};
      const bool same =
          ::fstat(lock.get(), &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino;
      if (same) return lock;
    } else if (errno != EWOULDBLOCK) {
      return errno_error(path);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return Error(Errc::kBusy, "another fsctl works on " + path + ": wait until it has ended");
}

Error not_understood(const std::string& key) {
  return {Errc::kInvalid,
          "cluster.toml: '" + key +
              "' is not understood; correct it, or delete the file and give the options again"};
}

Result<void> take_option(ClusterOptions& options, const std::string& key, const toml::node& node) {
  const auto text = node.value<std::string>();
  if (key == "workers") {
    const auto count = node.value<std::int64_t>();
    if (!count || *count < 1 || *count > 1024) return not_understood(key);
    options.workers = static_cast<unsigned>(*count);
    return ok();
  }
  if (!text) return not_understood(key);
  if (key == "listen") {
    options.listen = *text;
  } else if (key == "mount") {
    options.mount = *text;
  } else if (key == "memory") {
    options.memory = *text;
  } else if (key == "passthrough" && (*text == "auto" || *text == "on" || *text == "off")) {
    options.passthrough = *text;
  } else {
    return not_understood(key);
  }
  return ok();
}

bool is_mounted(const std::string& path) {
  const auto mounts = read_mountinfo();
  return mounts && find_mount_at(mounts.value(), path).has_value();
}

std::uint64_t bytes_below(const std::string& path) {
  std::uint64_t bytes = 0;
  std::error_code failure;
  for (auto entry = files::recursive_directory_iterator(path, failure);
       entry != files::recursive_directory_iterator(); entry.increment(failure)) {
    struct stat info{};
    if (failure) break;
    if (::lstat(entry->path().c_str(), &info) == 0) bytes += static_cast<std::uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

Result<void> remove_all(const std::string& path) {
  std::error_code failure;
  files::remove_all(path, failure);
  if (failure) return errno_error("cannot delete " + path, failure.value());
  return ok();
}

}  // namespace

std::string render_options(const ClusterOptions& options) {
  const toml::table table{{"listen", options.listen},
                          {"mount", options.mount},
                          {"workers", static_cast<std::int64_t>(options.workers)},
                          {"memory", options.memory},
                          {"passthrough", options.passthrough}};
  std::ostringstream out;
  out << "# Written by fsctl cluster up, which takes its options from here when they are not given.\n"
      << table << "\n";
  return out.str();
}

Result<ClusterOptions> parse_options(std::string_view text) {
  ClusterOptions options;
  try {
    const toml::table table = toml::parse(text);
    for (const auto& [key, node] : table) {
      GRADFS_TRYV(take_option(options, std::string(key.str()), node));
    }
  } catch (const toml::parse_error& error) {
    return Error(Errc::kInvalid, "cluster.toml line " + std::to_string(error.source().begin.line) + ": " +
                                     std::string(error.description()));
  }
  return options;
}

Result<ClusterDirectory> ClusterDirectory::open(const std::string& path, bool make) {
  std::error_code failure;
  if (make) files::create_directories(path, failure);
  if (failure) return errno_error("cannot make " + path, failure.value());
  ClusterDirectory out;
  out.path_ = files::canonical(path, failure).string();
  if (failure) return errno_error(path, failure.value());
  // Nothing is made in, and later deleted from, a directory that is no cluster's.
  if (!make && !files::exists(out.file("cluster.toml"), failure))
    return Error(Errc::kNotFound, path + " is no cluster's");
  GRADFS_TRY(out.lock_, take_lock(out.file("lock")));
  return out;
}

Result<std::optional<ClusterOptions>> ClusterDirectory::load() const {
  auto text = read_text_file(file("cluster.toml"));
  if (!text && text.error().code == Errc::kNotFound) return std::optional<ClusterOptions>();
  if (!text) return std::move(text).error();
  GRADFS_TRY(ClusterOptions options, parse_options(text.value()));
  return std::optional<ClusterOptions>(std::move(options));
}

Result<void> ClusterDirectory::save(const ClusterOptions& options) const {
  return replace_text_file(file("cluster.toml"), render_options(options));
}

std::optional<HeldMemory> held_memory(const ClusterDirectory& directory) {
  HeldMemory held{.path = directory.file("worker-0/mem"), .is_tmpfs = true};
  struct statvfs info{};
  if (is_mounted(held.path)) {
    if (::statvfs(held.path.c_str(), &info) != 0) return std::nullopt;
    held.bytes = std::uint64_t{info.f_blocks - info.f_bfree} * info.f_frsize;
    return held;
  }
  auto location = read_text_file(directory.file("worker-0/location"));
  if (!location) return std::nullopt;
  held.path = location.value().substr(0, location.value().find('\n'));
  held.is_tmpfs = false;
  const bool is_ours =
      held.path.starts_with(kShmPrefix) && held.path.find('/', kShmPrefix.size()) == std::string::npos;
  if (!is_ours || !files::is_directory(held.path)) return std::nullopt;
  held.bytes = bytes_below(held.path);
  return held;
}

Result<void> purge(const ClusterDirectory& directory) {
  for (auto held = held_memory(directory); held; held = held_memory(directory)) {
    if (!held->is_tmpfs) {
      GRADFS_TRYV(remove_all(held->path));
    } else if (::umount2(held->path.c_str(), UMOUNT_NOFOLLOW) != 0 &&
               ::umount2(held->path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
      return errno_error("cannot unmount " + held->path);
    }
  }
  for (const char* name : {"worker-0", "master", "master.log", "worker-0.log", "mount.log", "master.pid",
                           "worker-0.pid", "mount.pid", "cluster.toml", "lock"}) {
    GRADFS_TRYV(remove_all(directory.file(name)));
  }
  if (::rmdir(directory.path().c_str()) != 0 && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY) {
    return errno_error("cannot delete " + directory.path());
  }
  return ok();
}

}  // namespace gradfs::fsctl
