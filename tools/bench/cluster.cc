#include "tools/bench/cluster.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "fs/base/fd.h"

extern char** environ;

namespace gradfs::bench {
namespace {

std::string temporary_directory() { return std::filesystem::temp_directory_path().string(); }

std::string program_beside_us(const std::string& name) {
  std::error_code ec;
  return (std::filesystem::read_symlink("/proc/self/exe", ec).parent_path() / name).string();
}

std::string last_line(const std::string& path) {
  auto text = read_text_file(path, 16 << 20);
  if (!text) return {};
  std::string out = std::move(text).value();
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out.substr(out.rfind('\n') + 1);
}

Result<std::string> free_address() {
  UniqueFd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (!probe || ::bind(probe.get(), generic, length) != 0 ||
      ::getsockname(probe.get(), generic, &length) != 0) {
    return errno_error("no free port");
  }
  return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Result<void> run_program(const std::vector<std::string>& arguments,
                         const std::vector<std::string>& environment, const std::string& log_path) {
  std::vector<std::string> argument_texts = arguments;
  std::vector<std::string> variables = environment;
  for (char** inherited = environ; *inherited != nullptr; ++inherited) variables.emplace_back(*inherited);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                   0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  pid_t child = -1;
  const int failed = ::posix_spawnp(&child, argument_texts[0].c_str(), &actions, &attributes,
                                    pointers(argument_texts).data(), pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) return errno_error(arguments[0], failed);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return errno_error("waitpid");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ok();
  return Error(Errc::kIo, arguments[0] + " failed: " + last_line(log_path));
}

GradfsUnderTest::GradfsUnderTest(GradfsUnderTest&& other) noexcept
    : top_(std::move(other.top_)),
      work_(std::move(other.work_)),
      environment_(std::move(other.environment_)),
      logs_(std::move(other.logs_)) {}

Result<GradfsUnderTest> GradfsUnderTest::start(const Options& options) {
  GradfsUnderTest out;
  GRADFS_TRY(out.logs_, ScratchDirectory::make(temporary_directory()));
  std::string mount = options.mount;
  if (mount.empty()) {
    GRADFS_TRY(const std::string address, free_address());
    out.environment_ = {"GRADFS_MASTER=" + address};
    GRADFS_TRY(out.top_, ScratchDirectory::make(temporary_directory()));
    mount = out.top_.path() + "/mnt";
    if (::mkdir(mount.c_str(), 0755) != 0) return errno_error(mount);
    GRADFS_TRYV(
        run_program({program_beside_us("fsctl"), "cluster", "up", "--dir", out.top_.path() + "/cluster",
                     "--mount", mount, "--memory", std::to_string(options.memory_bytes)},
                    out.environment_, out.logs_.path() + "/up.log"));
  }
  GRADFS_TRY(out.work_, ScratchDirectory::make(mount));
  return out;
}

GradfsUnderTest::~GradfsUnderTest() {
  work_ = ScratchDirectory();
  if (top_.path().empty()) return;
  auto down = run_program(
      {program_beside_us("fsctl"), "cluster", "down", "--dir", top_.path() + "/cluster", "--purge", "--yes"},
      environment_, logs_.path() + "/down.log");
  if (!down) std::fprintf(stderr, "gradfs-bench: %s\n", down.error().message().c_str());
  ::umount2((top_.path() + "/mnt").c_str(),
            MNT_DETACH);  // never remove files through a mount that is still there
}

Result<std::string> GradfsUnderTest::create_model(const std::string& name, const std::string& layers) const {
  const std::string directory = path() + "/" + name;
  GRADFS_TRYV(run_program(
      {program_beside_us("fsctl"), "model", "create", directory, "--layers", layers, "--optimizer", "adam"},
      environment_, logs_.path() + "/create.log"));
  return directory;
}

Result<Subject> Subject::start(const Options& options, const std::string& backing) {
  Subject out;
  if (options.against_itself) {
    GRADFS_TRY(BareMount stand_in, BareMount::start(backing));
    out.stand_in_.emplace(std::move(stand_in));
  } else {
    GRADFS_TRY(GradfsUnderTest gradfs, GradfsUnderTest::start(options));
    out.gradfs_.emplace(std::move(gradfs));
  }
  return out;
}

}  // namespace gradfs::bench
