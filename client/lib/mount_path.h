// "PATH is a path in gradfs or on a mount": which gradfs a path that a person typed belongs to.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/result.h"

namespace gradfs {

// A line of /proc/self/mountinfo, as far as it matters here. Octal escapes are undone.
struct MountEntry {
  std::string mount_point;
  std::string root;    // what of the file system is mounted there: "/", or a subdirectory for a bind mount
  std::string type;    // "fuse.gradfs"
  std::string source;  // "HOST:PORT[,HOST:PORT][:/SUBPATH]" for gradfs
  [[nodiscard]] bool is_gradfs() const { return type == "fuse.gradfs"; }
};

// In the order of the text. Lines that are not understood are left out.
std::vector<MountEntry> parse_mountinfo(std::string_view text);
// Of this process, now. Reading it touches no mounted file system.
Result<std::vector<MountEntry>> read_mountinfo();
// What is mounted exactly at `path` (absolute, normal); the topmost where there are several.
std::optional<MountEntry> find_mount_at(const std::vector<MountEntry>& mounts, const std::string& path);

struct GradfsPath {
  std::string path;    // absolute, in gradfs
  std::string master;  // of the mount, "HOST:PORT"; empty: the path was not on a mount
};

// `path` must be absolute. nullopt: it is not on a mount of gradfs. Nothing is touched: whether it exists
// does not matter.
std::optional<GradfsPath> translate_on_mounts(const std::vector<MountEntry>& mounts, const std::string& path);

// Relative paths are taken from the working directory and must be on a mount (kInvalid). An absolute path
// that is on no mount, after symbolic links as well, is a path in gradfs.
Result<GradfsPath> translate_path(const std::string& path);

// Without ".", "..", double or trailing slashes. By its text alone.
std::string normal_path(std::string_view path);

}  // namespace gradfs
