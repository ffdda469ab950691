#include "fs/base/faults.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace gradfs {
namespace {

class Faults : public ::testing::Test {
 protected:
  void SetUp() override { disarm_faults(); }
  void TearDown() override { disarm_faults(); }
};

Result<int> guarded() {
  GRADFS_TRYV(GRADFS_FAULT("test.guarded"));
  return 7;
}

std::uint64_t reached(const std::string& name) {
  for (const auto& point : list_faults()) {
    if (point.name == name) return point.reached;
  }
  return 0;
}

TEST_F(Faults, NothingArmedIsNothingAndCountsNothing) {
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(guarded());
  EXPECT_TRUE(list_faults().empty());
  EXPECT_EQ(internal::faults_active.load(), 0);
}

TEST_F(Faults, AnErrorComesOnceAtItsTime) {
  ASSERT_TRUE(arm_faults("test.guarded=error@3"));
  EXPECT_TRUE(guarded());
  EXPECT_TRUE(guarded());
  const auto failed = guarded();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kIo);
  EXPECT_EQ(failed.error().detail, "injected at test.guarded");
  EXPECT_TRUE(guarded());
  EXPECT_EQ(reached("test.guarded"), 4u);
}

TEST_F(Faults, APlusMeansFromThenOn) {
  ASSERT_TRUE(arm_faults("test.guarded=error@2+"));
  EXPECT_TRUE(guarded());
  EXPECT_FALSE(guarded());
  EXPECT_FALSE(guarded());
}

TEST_F(Faults, WithoutATimeItIsTheFirst) {
  ASSERT_TRUE(arm_faults("other=kill,test.guarded=error"));
  EXPECT_FALSE(guarded());
  EXPECT_TRUE(guarded());
}

TEST_F(Faults, ADelaySleeps) {
  ASSERT_TRUE(arm_faults("test.guarded=delay:30@1"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(guarded());
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(30));
}

TEST_F(Faults, RefusesWhatItCannotReadAndArmsNothing) {
  for (const char* text : {"x", "=kill", "x=", "x=stop", "x=kill@0", "x=kill@", "x=kill@1x",
                           "x=delay:", "x=delay:-1", "test.guarded=error,y=nonsense"}) {
    const auto armed = arm_faults(text);
    ASSERT_FALSE(armed) << text;
    EXPECT_EQ(armed.error().code, Errc::kInvalid) << text;
  }
  EXPECT_TRUE(list_faults().empty());
}

TEST_F(Faults, ListsWhatWasArmedOrReached) {
  count_faults(true);
  ASSERT_TRUE(arm_faults("test.other=delay:5@9"));
  EXPECT_TRUE(guarded());
  EXPECT_TRUE(guarded());
  const auto points = list_faults();
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[0].name, "test.guarded");
  EXPECT_EQ(points[0].reached, 2u);
  EXPECT_EQ(points[0].armed, "");
  EXPECT_EQ(points[1].name, "test.other");
  EXPECT_EQ(points[1].reached, 0u);
  EXPECT_EQ(points[1].armed, "delay:5@9");
}

TEST_F(Faults, ThreadsCountTogetherAndOneOfThemFails) {
  ASSERT_TRUE(arm_faults("test.guarded=error@2000"));
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&failed] {
      for (int j = 0; j < 1000; ++j) failed += guarded() ? 0 : 1;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failed.load(), 1);
  EXPECT_EQ(reached("test.guarded"), 4000u);
}

TEST_F(Faults, KillEndsTheProcessAtOnce) {
  const pid_t child = ::fork();
  if (child == 0) {
    (void)arm_faults("test.guarded=kill@2");
    (void)guarded();
    (void)guarded();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

// A process of its own reads the environment: this program runs itself with one test and a fault in it.
TEST_F(Faults, TheEnvironmentArms) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const auto run = [&self](const char* faults) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::setenv("GRADFS_FAULTS", faults, 1);
      ::execl(self.c_str(), self.c_str(), "--gtest_filter=FaultsChild.*", nullptr);
      ::_exit(99);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  };
  const int killed = run("test.guarded=kill@3");
  EXPECT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
  const int unharmed = run("test.guarded=kill@4");
  EXPECT_TRUE(WIFEXITED(unharmed) && WEXITSTATUS(unharmed) == 0);
  const int unreadable = run("test.guarded=explode");
  EXPECT_TRUE(WIFEXITED(unreadable) && WEXITSTATUS(unreadable) == 2);
}

// With the environment as it is: the child of the test above, which arms this point.
TEST(FaultsChild, ReachesThePointThreeTimes) {
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(guarded());
}

}  // namespace
}  // namespace gradfs
