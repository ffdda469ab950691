#include "tools/fsctl/cluster_directory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "fs/base/size.h"

namespace gradfs::fsctl {
namespace {

class ClusterDirectoryTest : public ::testing::Test {
 protected:
  ClusterDirectoryTest() {
    std::string name = (std::filesystem::temp_directory_path() / "gradfs-directory-XXXXXX").string();
    top_ = ::mkdtemp(name.data());
  }
  ~ClusterDirectoryTest() override { std::filesystem::remove_all(top_); }
  std::string top_;
};

TEST(ClusterOptions, SurviveARoundTrip) {
  const ClusterOptions options{.listen = "127.0.0.1:7411",
                               .mount = "/mnt/with \"quotes\" and \\",
                               .workers = 1,
                               .memory = "512MiB",
                               .passthrough = "off"};
  EXPECT_EQ(parse_options(render_options(options)).value(), options);
  EXPECT_EQ(parse_options(render_options(ClusterOptions{})).value(), ClusterOptions{});
}

TEST(ClusterOptions, WhatIsMissingHasItsDefault) {
  const ClusterOptions options = parse_options("mount = \"/mnt/g\"\n").value();
  EXPECT_EQ(options.mount, "/mnt/g");
  EXPECT_EQ(options.memory, ClusterOptions{}.memory);
}

TEST(ClusterOptions, WhatIsNotUnderstoodIsRefused) {
  for (const char* text : {"mount = 7", "workers = \"one\"", "workers = 0", "passthrough = \"maybe\"",
                           "unknown = \"x\"", "mount = "}) {
    const auto result = parse_options(text);
    ASSERT_FALSE(result.has_value()) << text;
    EXPECT_EQ(result.error().code, Errc::kInvalid) << text;
    EXPECT_EQ(result.error().detail.find("cluster.toml"), 0U) << result.error().detail;
    EXPECT_EQ(result.error().detail.find('\n'), std::string::npos);
  }
}

TEST(ClusterOptions, SizesAreWrittenAsPeopleDo) {
  EXPECT_EQ(parse_size("512MiB").value(), 512ULL << 20);
  EXPECT_EQ(parse_size("4GiB").value(), 4ULL << 30);
  EXPECT_EQ(parse_size("4G").value(), 4ULL << 30);
  EXPECT_EQ(parse_size("1000000").value(), 1'000'000U);
  for (const char* text :
       {"", "0", "-1", "4X", "4 GiB", "GiB", "1.5GiB", "99999999999999999999", "9999999PiB"}) {
    EXPECT_FALSE(parse_size(text).has_value()) << text;
  }
}

TEST_F(ClusterDirectoryTest, KeepsItsOptions) {
  const ClusterOptions options{.mount = "/mnt/g", .memory = "1GiB"};
  {
    const auto directory = ClusterDirectory::open(top_ + "/new/dir", true);
    ASSERT_TRUE(directory.has_value());
    EXPECT_FALSE(directory.value().load().value().has_value());
    ASSERT_TRUE(directory.value().save(options).has_value());
  }
  const auto again = ClusterDirectory::open(top_ + "/new/dir", false);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again.value().load().value(), options);
  EXPECT_FALSE(held_memory(again.value()).has_value());
}

TEST_F(ClusterDirectoryTest, ADirectoryThatIsNoClustersIsLeftAlone) {
  const auto directory = ClusterDirectory::open(top_, false);
  ASSERT_FALSE(directory.has_value());
  EXPECT_EQ(directory.error().code, Errc::kNotFound);
  EXPECT_TRUE(std::filesystem::is_empty(top_));
  EXPECT_EQ(ClusterDirectory::open(top_ + "/none", false).error().code, Errc::kNotFound);
}

TEST_F(ClusterDirectoryTest, PurgeDeletesWhatGradfsMadeAndNothingElse) {
  const std::string path = top_ + "/c";
  {
    const auto directory = ClusterDirectory::open(path, true);
    ASSERT_TRUE(directory.value().save(ClusterOptions{}).has_value());
    std::filesystem::create_directories(path + "/master/db");
    std::filesystem::create_directories(path + "/worker-0/mem");
    std::ofstream(path + "/master/db/x") << "x";
    std::ofstream(path + "/mine.txt") << "x";
    ASSERT_TRUE(purge(directory.value()).has_value());
  }
  EXPECT_TRUE(std::filesystem::exists(path + "/mine.txt"));
  EXPECT_FALSE(std::filesystem::exists(path + "/master"));
  EXPECT_FALSE(std::filesystem::exists(path + "/cluster.toml"));
  std::filesystem::remove(path + "/mine.txt");
  {
    const auto directory = ClusterDirectory::open(path, true);
    ASSERT_TRUE(purge(directory.value()).has_value());
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ClusterDirectoryTest, ALocationOutsideOfSharedMemoryIsNeverTouched) {
  const auto directory = ClusterDirectory::open(top_ + "/c", true);
  ASSERT_TRUE(directory.value().save(ClusterOptions{}).has_value());
  std::filesystem::create_directories(top_ + "/c/worker-0");
  std::filesystem::create_directories(top_ + "/precious");
  for (const std::string& location :
       {top_ + "/precious", std::string("/dev/shm/gradfs-x/../.."), std::string("/")}) {
    std::ofstream(top_ + "/c/worker-0/location") << location << "\n";
    EXPECT_FALSE(held_memory(directory.value()).has_value()) << location;
  }
  ASSERT_TRUE(purge(directory.value()).has_value());
  EXPECT_TRUE(std::filesystem::exists(top_ + "/precious"));
}

}  // namespace
}  // namespace gradfs::fsctl
