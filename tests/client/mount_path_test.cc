#include "client/lib/mount_path.h"

#include <gtest/gtest.h>

namespace gradfs {
namespace {

constexpr const char* kMountinfo =
    "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "22 21 0:20 / /proc rw,nosuid - proc proc rw\n"
    "30 21 0:50 / /mnt/g rw,nosuid,nodev shared:7 master:2 - fuse.gradfs 127.0.0.1:7400 rw,user_id=0\n"
    "31 30 0:51 / /mnt/g/scratch rw - tmpfs tmpfs rw\n"
    "32 21 0:52 / /mnt/sub rw - fuse.gradfs m1:7400,m2:7400:/team/a rw\n"
    "33 21 0:50 /models /srv/models rw - fuse.gradfs 127.0.0.1:7400 rw\n"
    "34 21 0:53 / /mnt/with\\040space rw - fuse.gradfs [::1]:7400 rw\n"
    "35 21 0:54 / /mnt/cover rw - fuse.gradfs 127.0.0.1:1 rw\n"
    "36 35 0:55 / /mnt/cover rw - fuse.gradfs 127.0.0.1:2 rw\n"
    "this is no line of mountinfo\n";

std::vector<MountEntry> sample() { return parse_mountinfo(kMountinfo); }

GradfsPath translated(const std::string& path) {
  return translate_on_mounts(sample(), path).value_or(GradfsPath{"none", "none"});
}

TEST(MountPath, ParsesLinesWithAnyNumberOfOptionalFields) {
  const auto mounts = sample();
  ASSERT_EQ(mounts.size(), 9U);
  EXPECT_EQ(mounts[2].mount_point, "/mnt/g");
  EXPECT_EQ(mounts[2].type, "fuse.gradfs");
  EXPECT_EQ(mounts[2].source, "127.0.0.1:7400");
  EXPECT_EQ(mounts[5].root, "/models");
  EXPECT_EQ(mounts[6].mount_point, "/mnt/with space");
}

TEST(MountPath, TranslatesBelowTheLongestMountPoint) {
  EXPECT_EQ(translated("/mnt/g/models/mnist").path, "/models/mnist");
  EXPECT_EQ(translated("/mnt/g/models/mnist").master, "127.0.0.1:7400");
  EXPECT_EQ(translated("/mnt/g").path, "/");
  EXPECT_EQ(translated("/mnt/g/").path, "/");
}

TEST(MountPath, AnotherFileSystemInsideOfTheMountIsNotGradfs) {
  EXPECT_FALSE(translate_on_mounts(sample(), "/mnt/g/scratch/x").has_value());
  EXPECT_TRUE(translate_on_mounts(sample(), "/mnt/g/scratchy").has_value());
}

TEST(MountPath, PathsOffTheMountAreNone) {
  for (const char* path : {"/", "/models/mnist", "/mnt", "/mnt/gg/x", "/mnt/g/../x", "/proc/self"}) {
    EXPECT_FALSE(translate_on_mounts(sample(), path).has_value()) << path;
  }
}

TEST(MountPath, SubpathAndBindMountComeBefore) {
  EXPECT_EQ(translated("/mnt/sub/x").path, "/team/a/x");
  EXPECT_EQ(translated("/mnt/sub/x").master, "m1:7400");
  EXPECT_EQ(translated("/srv/models/mnist").path, "/models/mnist");
  EXPECT_EQ(translated("/srv/models/mnist").master, "127.0.0.1:7400");
}

TEST(MountPath, EscapedNamesAndIpv6) {
  EXPECT_EQ(translated("/mnt/with space/x y").path, "/x y");
  EXPECT_EQ(translated("/mnt/with space/x y").master, "[::1]:7400");
}

TEST(MountPath, TheTopmostOfStackedMountsCounts) {
  EXPECT_EQ(translated("/mnt/cover/x").master, "127.0.0.1:2");
  EXPECT_EQ(find_mount_at(sample(), "/mnt/cover")->source, "127.0.0.1:2");
  EXPECT_FALSE(find_mount_at(sample(), "/mnt").has_value());
}

TEST(MountPath, NormalPathIsByText) {
  EXPECT_EQ(normal_path("/a//b/./c/../d/"), "/a/b/d");
  EXPECT_EQ(normal_path("/../.."), "/");
  EXPECT_EQ(normal_path(""), "/");
  EXPECT_EQ(normal_path("/.hidden/..x"), "/.hidden/..x");
}

TEST(MountPath, RelativePathsMustBeOnAMount) {
  const auto result = translate_path("certainly/not/on/a/mount");
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, Errc::kInvalid);
  EXPECT_NE(result.error().detail.find("certainly/not/on/a/mount"), std::string::npos);
  EXPECT_FALSE(translate_path("").has_value());
}

TEST(MountPath, AbsolutePathsOnNoMountArePathsInGradfs) {
  const auto result = translate_path("/models/./no-such-model-here/");
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result.value().path, "/models/no-such-model-here");
  EXPECT_EQ(result.value().master, "");
}

}  // namespace
}  // namespace gradfs
