#include "tools/bench/bare_mount.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "fs/base/fd.h"
#include "tools/bench/bench.h"

namespace gradfs::bench {
namespace {

std::string mounts() {
  auto text = read_text_file("/proc/self/mounts");
  return text ? text.value() : "";
}

TEST(BareMount, FileBytesGoRoundTheDaemon) {
  auto tmpfs = ScratchTmpfs::mount(16 << 20);
  ASSERT_TRUE(tmpfs) << tmpfs.error().message();
  auto bare = BareMount::start(tmpfs.value().path());
  ASSERT_TRUE(bare) << bare.error().message();
  auto file = open_file(bare.value().path() + "/file", O_RDWR | O_CREAT | O_EXCL);
  ASSERT_TRUE(file) << file.error().message();
  const std::string text = "what is written";
  ASSERT_EQ(::pwrite(file.value().get(), text.data(), text.size(), 4096), static_cast<ssize_t>(text.size()));

  const std::uint64_t before = bare.value().requests().waited;
  for (int i = 0; i < 100; ++i) {
    std::string back(text.size(), ' ');
    ASSERT_EQ(::pread(file.value().get(), back.data(), back.size(), 4096), static_cast<ssize_t>(back.size()));
    ASSERT_EQ(back, text);
    ASSERT_EQ(::pwrite(file.value().get(), text.data(), text.size(), 4096),
              static_cast<ssize_t>(text.size()));
  }
  EXPECT_EQ(bare.value().requests().waited, before);

  struct stat info{};
  ASSERT_EQ(::fstat(file.value().get(), &info), 0);
  EXPECT_EQ(info.st_size, static_cast<off_t>(4096 + text.size()));
  auto map = Mapping::map(file.value(), 8192, true);
  ASSERT_TRUE(map) << map.error().message();
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(map.value().data()) + 4096, text.size()), text);
}

TEST(BareMount, CountsTheRequestsThatACallWaitsFor) {
  auto bare = BareMount::start("");
  ASSERT_TRUE(bare) << bare.error().message();
  const RequestCounts before = bare.value().requests();
  {
    auto file = open_file(bare.value().path() + "/file", O_WRONLY | O_CREAT | O_EXCL);
    ASSERT_TRUE(file) << file.error().message();
  }
  EXPECT_EQ(bare.value().requests().waited - before.waited, 3U);  // LOOKUP, CREATE, FLUSH
  ASSERT_EQ(::rename((bare.value().path() + "/file").c_str(), (bare.value().path() + "/other").c_str()), 0);
  struct stat info{};
  EXPECT_EQ(::stat((bare.value().path() + "/other").c_str(), &info), 0);
  EXPECT_EQ(::stat((bare.value().path() + "/file").c_str(), &info), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(::unlink((bare.value().path() + "/other").c_str()), 0);
}

TEST(BareMount, NothingIsLeftAtTheEnd) {
  std::string path;
  std::string tmpfs_path;
  {
    auto tmpfs = ScratchTmpfs::mount(1 << 20);
    ASSERT_TRUE(tmpfs) << tmpfs.error().message();
    auto bare = BareMount::start(tmpfs.value().path());
    ASSERT_TRUE(bare) << bare.error().message();
    path = bare.value().path();
    tmpfs_path = tmpfs.value().path();
    EXPECT_THAT(mounts(), testing::HasSubstr(path));
    EXPECT_THAT(mounts(), testing::HasSubstr(tmpfs_path));
  }
  EXPECT_THAT(mounts(), testing::Not(testing::HasSubstr(path)));
  EXPECT_THAT(mounts(), testing::Not(testing::HasSubstr(tmpfs_path)));
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
  EXPECT_NE(::access(tmpfs_path.c_str(), F_OK), 0);
}

// The whole of the two benchmarks that can do without a cluster, on two mounts that are alike.
TEST(Bench, MountAgainstItself) {
  Options options;
  options.against_itself = options.quick = true;
  options.size_bytes = 8 << 20;
  const auto report = bench_mount(options);
  ASSERT_TRUE(report) << report.error().message();
  ASSERT_EQ(report.value().rows.size(), 11U);
  for (const Row& row : report.value().rows) {
    EXPECT_GT(row.gradfs, 0.0) << row.name;
    EXPECT_GT(row.ratio, 0.0) << row.name;
    EXPECT_GT(row.also.at("/dev/shm"), 0.0) << row.name;
    EXPECT_EQ(row.repetitions, 8U) << row.name;
  }
}

TEST(Bench, MetadataAgainstItself) {
  Options options;
  options.against_itself = options.quick = true;
  const auto report = bench_metadata(options);
  ASSERT_TRUE(report) << report.error().message();
  std::map<std::string, Row> rows;
  for (const Row& row : report.value().rows) rows[row.name] = row;
  EXPECT_EQ(rows.at("create + close").reference_name, "3 empty round trips");
  EXPECT_EQ(rows.at("open + close, read-only").reference_name, "2 empty round trips");
  EXPECT_EQ(rows.at("rename").reference_name, "2 empty round trips");
  EXPECT_EQ(rows.at("stat, cached").reference_name, "tmpfs (nothing is asked)");
  EXPECT_EQ(rows.at("unlink").reference_name, "1 empty round trip");
}

}  // namespace
}  // namespace gradfs::bench
