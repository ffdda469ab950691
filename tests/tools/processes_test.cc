// Daemons and guarded children, with programs of the system in the place of gradfs's.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fs/base/clock.h"
#include "tools/fsctl/daemon.h"
#include "tools/fsctl/mount_control.h"

namespace gradfs::fsctl {
namespace {

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest() {
    std::string name = (std::filesystem::temp_directory_path() / "gradfs-daemon-XXXXXX").string();
    top_ = ::mkdtemp(name.data());
  }
  ~DaemonTest() override {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    std::filesystem::remove_all(top_);
  }
  [[nodiscard]] Daemon shell(const std::string& script) const {
    return {.role = "x",
            .program = "sh",
            .mark = top_,
            .pid_file = top_ + "/x.pid",
            .log_file = top_ + "/x.log",
            .arguments = {"-c", script, top_}};
  }
  pid_t started(const Daemon& daemon) {
    const pid_t pid = start(daemon).value();
    pids_.push_back(pid);
    return pid;
  }
  std::string top_;
  std::vector<pid_t> pids_;
};

TEST_F(DaemonTest, IsKnownByItsPidFileAndItsArguments) {
  const Daemon daemon = shell("echo here; while :; do sleep 0.05; done");
  const pid_t pid = started(daemon);
  const auto ready = [&] { return last_line(daemon.log_file, 0) == "here"; };
  ASSERT_TRUE(wait_ready(daemon, pid, 0, 10 * kSecond_ns, ready).has_value());
  EXPECT_EQ(running_pid(daemon), pid);
  EXPECT_EQ(::getsid(pid), pid);
  Daemon other = daemon;
  other.mark = top_ + "/other";
  EXPECT_FALSE(running_pid(other).has_value());
  other = daemon;
  other.program = "gradfs-master";
  EXPECT_FALSE(running_pid(other).has_value());
  ASSERT_TRUE(end(daemon, pid, 5 * kSecond_ns).has_value());
  EXPECT_FALSE(running_pid(daemon).has_value());
  EXPECT_FALSE(std::filesystem::exists(daemon.pid_file));
}

TEST_F(DaemonTest, OneThatEndsEarlyIsReportedWithItsLastLineOfThisStart) {
  const Daemon daemon = shell("echo cannot listen >&2; exit 1");
  std::ofstream(daemon.log_file) << "a line of an earlier start\n";
  const std::int64_t offset = file_bytes(daemon.log_file);
  const auto result = wait_ready(daemon, started(daemon), offset, 10 * kSecond_ns, [] { return false; });
  ASSERT_FALSE(result.has_value());
  EXPECT_NE(result.error().detail.find("cannot listen"), std::string::npos) << result.error().detail;
  EXPECT_NE(result.error().detail.find(daemon.log_file), std::string::npos);
  EXPECT_EQ(last_line(daemon.log_file, file_bytes(daemon.log_file)), "");
}

TEST_F(DaemonTest, OneThatIsNeverReadyIsEndedAtTheDeadline) {
  const Daemon daemon = shell("while :; do sleep 0.05; done");
  const pid_t pid = started(daemon);
  const auto result = wait_ready(daemon, pid, 0, kSecond_ns / 2, [] { return false; });
  ASSERT_FALSE(result.has_value());
  EXPECT_FALSE(is_alive(pid));
}

TEST_F(DaemonTest, OneThatIgnoresSigtermOrIsStoppedIsKilled) {
  const Daemon daemon = shell("trap '' TERM; echo here; while :; do sleep 0.05; done");
  const pid_t pid = started(daemon);
  ASSERT_TRUE(wait_ready(daemon, pid, 0, 10 * kSecond_ns, [&] {
                return file_bytes(daemon.log_file) > 0;
              }).has_value());
  ::kill(pid, SIGSTOP);
  EXPECT_TRUE(end(daemon, pid, kSecond_ns / 4).has_value());
  EXPECT_FALSE(is_alive(pid));
}

TEST_F(DaemonTest, PidFilesOfNobodyAreIgnored) {
  const Daemon daemon = shell("true");
  for (const char* text : {"", "x", "0", "1", "-1", "999999999"}) {
    std::ofstream(daemon.pid_file) << text;
    EXPECT_FALSE(running_pid(daemon).has_value()) << text;
  }
}

TEST(RunInChild, GivesTheErrnoOrTimesOut) {
  EXPECT_EQ(run_in_child([] { return 0; }, 5 * kSecond_ns), 0);
  EXPECT_EQ(run_in_child([] { return ENOTCONN; }, 5 * kSecond_ns), ENOTCONN);
  const std::int64_t begin = real_now_ns();
  EXPECT_EQ(run_in_child([] { return ::pause(); }, kSecond_ns / 10), ETIMEDOUT);
  EXPECT_LT(real_now_ns() - begin, 5 * kSecond_ns);
}

TEST(MountState, APlainDirectoryHasNoMount) {
  EXPECT_EQ(mount_state("/tmp", kSecond_ns).value(), MountState::kNone);
  EXPECT_TRUE(detach("/tmp").has_value());
}

TEST(UsersOf, FindsWhoSitsThere) {
  std::string name = (std::filesystem::temp_directory_path() / "gradfs-users-XXXXXX").string();
  const std::string folder = ::mkdtemp(name.data());
  const pid_t child = ::fork();
  if (child == 0) {
    if (::chdir(folder.c_str()) != 0) ::_exit(1);
    for (;;) ::pause();
  }
  std::string users;
  for (int i = 0; i < 200 && users.empty(); ++i) {
    users = users_of(folder);
    ::usleep(10'000);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  std::filesystem::remove_all(folder);
  EXPECT_NE(users.find("(pid " + std::to_string(child) + ")"), std::string::npos) << users;
}

}  // namespace
}  // namespace gradfs::fsctl
