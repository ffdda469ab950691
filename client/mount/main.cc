// gradfs-mount, also mount.gradfs: makes a gradfs usable by any program, through FUSE.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <set>
#include <sstream>

#include "client/mount/mount.h"
#include "fs/base/host.h"
#include "fs/base/log.h"
#include "fs/base/program.h"

namespace gradfs {
namespace {

struct Arguments {
  std::string source;
  std::string mount_point;
  std::vector<std::string> options;
  bool foreground = false;
  bool sloppy = false;
  bool fake = false;
  bool verbose = false;
  bool no_mtab = false;
};

// Options that fstab and mount(8) give to every filesystem, and that mean nothing to this one.
const std::set<std::string> kIgnored = {"defaults",    "_netdev",
                                        "auto",        "noauto",
                                        "nofail",      "user",
                                        "nouser",      "users",
                                        "allow_other", "default_permissions",
                                        "rw",          "x-systemd.automount"};
const std::set<std::string> kKernel = {"ro",   "suid",  "nosuid",  "dev",     "nodev", "exec",    "noexec",
                                       "sync", "atime", "noatime", "dirsync", "async", "relatime"};

Result<void> take_option(const std::string& option, bool sloppy, MountOptions& out) {
  const auto equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  if (key == "passthrough") {
    if (value == "auto")
      out.passthrough = PassthroughMode::kAuto;
    else if (value == "on")
      out.passthrough = PassthroughMode::kOn;
    else if (value == "off")
      out.passthrough = PassthroughMode::kOff;
    else
      return Error(Errc::kInvalid, "-o passthrough=" + value + ": it is auto, on or off");
    return ok();
  }
  if (key == "timeout") {
    std::int64_t seconds = 0;
    const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), seconds);
    if (ec != std::errc() || end != value.data() + value.size() || seconds < 1 || seconds > 86400) {
      return Error(Errc::kInvalid, "-o timeout=" + value + ": give whole seconds, 1 to 86400");
    }
    out.timeout_ns = seconds * kSecond_ns;
    return ok();
  }
  if (kKernel.contains(key)) {
    out.kernel_options += (out.kernel_options.empty() ? "" : ",") + key;
    return ok();
  }
  if (kIgnored.contains(key) || key.starts_with("x-") || key.empty() || sloppy) return ok();
  return Error(Errc::kInvalid, "unknown option '" + option +
                                   "'; there is passthrough=auto|on|off, timeout=SECONDS, ro, noatime, ...");
}

Result<MountOptions> parse(const Arguments& arguments) {
  MountOptions out;
  const auto slash = arguments.source.find(":/");
  out.master = arguments.source.substr(0, slash);
  if (slash != std::string::npos) out.subpath = arguments.source.substr(slash + 1);
  if (out.master.find(':') == std::string::npos) out.master += ":7400";
  if (out.master.find(',') != std::string::npos) {
    return Error(Errc::kNotSupported, "several masters: name one, HOST:PORT");
  }
  char absolute[PATH_MAX];
  if (::realpath(arguments.mount_point.c_str(), absolute) == nullptr)
    return errno_error(arguments.mount_point);
  out.mount_point = absolute;
  for (const auto& word : arguments.options) {
    std::istringstream in(word);
    std::string option;
    while (std::getline(in, option, ',')) {
      GRADFS_TRYV(take_option(option, arguments.sloppy, out));
    }
  }
  return out;
}

Task<> begin(Mount& mount, Executor& executor, int ready_fd, int& status) {
  auto started = co_await mount.start([ready_fd] {
    notify_service_manager("READY=1");
    if (ready_fd >= 0 && ::write(ready_fd, "1", 1) != 1) spdlog::warn("nobody waits for the mount");
    if (ready_fd >= 0) ::close(ready_fd);
  });
  if (started) co_return;
  print_error("gradfs-mount", started.error());
  status = 1;
  executor.stop();
}

Task<> end(Mount& mount, Executor& executor) {
  co_await mount.stop();
  executor.stop();
}

int serve(const MountOptions& options, int ready_fd) {
  Executor executor;
  const auto transport = make_socket_transport(executor);
  Mount mount(executor, *transport, options);
  Scope scope(executor);
  int status = 0;
  bool ending = false;
  const auto finish = [&] {
    if (!std::exchange(ending, true)) scope.spawn(end(mount, executor));
  };
  mount.on_unmounted = finish;
  executor.on_termination(finish);
  scope.spawn(begin(mount, executor, ready_fd, status));
  executor.run();
  return status;
}

// In the background: returns when the mount is usable, with the child's status if it never becomes so.
int serve_in_background(const MountOptions& options) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return print_error("gradfs-mount", errno_error("pipe"));
  const pid_t child = ::fork();
  if (child < 0) return print_error("gradfs-mount", errno_error("fork"));
  if (child == 0) {
    ::close(ends[0]);
    ::setsid();
    if (::chdir("/") != 0) return 1;
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    ::dup2(null.get(), STDIN_FILENO);
    ::dup2(null.get(), STDOUT_FILENO);
    spdlog::set_level(spdlog::level::err);
    return serve(options, ends[1]);
  }
  ::close(ends[1]);
  char byte = 0;
  if (::read(ends[0], &byte, 1) == 1) return 0;
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : 1;
}

}  // namespace
}  // namespace gradfs

int main(int argc, char** argv) {
  gradfs::Arguments arguments;
  CLI::App app{
      "gradfs-mount: mounts a gradfs\nExample: gradfs-mount 127.0.0.1:7400 /mnt/gradfs -o passthrough=auto"};
  app.set_version_flag("--version,-V", GRADFS_VERSION);
  app.add_option("source", arguments.source, "HOST:PORT[:/PATH] of the master")->required();
  app.add_option("mount_point", arguments.mount_point, "an existing directory")->required();
  app.add_flag("-f,--foreground", arguments.foreground,
               "stay in the foreground (as mount.gradfs: fake, do not mount)");
  app.add_option("-o", arguments.options, "passthrough=auto|on|off, timeout=SECONDS, ro, noatime, ...")
      ->take_all();
  app.add_flag("-s", arguments.sloppy, "ignore unknown options");
  app.add_flag("-n", arguments.no_mtab, "do not write /etc/mtab (it never does)");
  app.add_flag("-v", arguments.verbose, "say what is done");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const std::string program = argv[0];
  const bool is_helper = program.ends_with("mount.gradfs");
  gradfs::raise_descriptor_limit();
  gradfs::start_logging("gradfs-mount", arguments.verbose ? "debug" : "info");
  auto options = gradfs::parse(arguments);
  if (!options) return gradfs::print_error("gradfs-mount", options.error());
  if (is_helper && arguments.foreground) return 0;  // mount(8)'s -f: everything but the mount
  if (arguments.foreground) return gradfs::serve(options.value(), -1);
  return gradfs::serve_in_background(options.value());
}
