#include "client/lib/mount_path.h"

#include <algorithm>
#include <filesystem>

#include "fs/base/fd.h"

namespace gradfs {
namespace {

constexpr std::size_t kMountinfoLimit = 16 << 20;

bool is_octal(char c) { return c >= '0' && c <= '7'; }

std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    if (end > 0) out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// `path` is `folder` or below it.
bool is_within(const std::string& path, const std::string& folder) {
  if (folder == "/") return true;
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

std::optional<MountEntry> parse_line(std::string_view line) {
  const auto fields = split(line, ' ');
  for (std::size_t i = 6; i + 2 < fields.size(); ++i) {  // optional fields end with "-"
    if (fields[i] != "-") continue;
    return MountEntry{.mount_point = unescape(fields[4]),
                      .root = unescape(fields[3]),
                      .type = std::string(fields[i + 1]),
                      .source = unescape(fields[i + 2])};
  }
  return std::nullopt;
}

}  // namespace

std::string normal_path(std::string_view path) {
  std::vector<std::string_view> kept;
  for (const std::string_view part : split(path, '/')) {
    if (part == ".") continue;
    if (part != "..") {
      kept.push_back(part);
    } else if (!kept.empty()) {
      kept.pop_back();
    }
  }
  std::string out;
  for (const std::string_view part : kept) out.append("/").append(part);
  return out.empty() ? "/" : out;
}

std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  for (const std::string_view line : split(text, '\n')) {
    if (auto entry = parse_line(line)) mounts.push_back(std::move(*entry));
  }
  return mounts;
}

Result<std::vector<MountEntry>> read_mountinfo() {
  GRADFS_TRY(const std::string text, read_text_file("/proc/self/mountinfo", kMountinfoLimit));
  return parse_mountinfo(text);
}

std::optional<MountEntry> find_mount_at(const std::vector<MountEntry>& mounts, const std::string& path) {
  for (auto entry = mounts.rbegin(); entry != mounts.rend(); ++entry) {
    if (entry->mount_point == path) return *entry;
  }
  return std::nullopt;
}

std::optional<GradfsPath> translate_on_mounts(const std::vector<MountEntry>& mounts,
                                              const std::string& path) {
  const std::string normal = normal_path(path);
  const MountEntry* best = nullptr;
  for (const MountEntry& entry : mounts) {  // of equal mount points, the later one covers the earlier
    if (is_within(normal, entry.mount_point) &&
        (best == nullptr || entry.mount_point.size() >= best->mount_point.size())) {
      best = &entry;
    }
  }
  if (best == nullptr || !best->is_gradfs()) return std::nullopt;
  const std::size_t colon = best->source.find(":/");
  const std::string masters = best->source.substr(0, colon);
  const std::string subpath = colon == std::string::npos ? "" : best->source.substr(colon + 1);
  const std::string rest = best->mount_point == "/" ? normal : normal.substr(best->mount_point.size());
  return GradfsPath{.path = normal_path(subpath + "/" + best->root + "/" + rest),
                    .master = masters.substr(0, masters.find(','))};
}

Result<GradfsPath> translate_path(const std::string& path) {
  if (path.empty()) return Error(Errc::kInvalid, "the path is empty");
  GRADFS_TRY(const auto mounts, read_mountinfo());
  std::error_code failure;
  const std::filesystem::path absolute = std::filesystem::absolute(path, failure);
  if (failure) return errno_error(path, failure.value());
  if (auto found = translate_on_mounts(mounts, absolute.string())) return *found;
  const std::filesystem::path real = std::filesystem::weakly_canonical(absolute, failure);
  if (!failure) {
    if (auto found = translate_on_mounts(mounts, real.string())) return *found;
  }
  if (path.front() != '/') {
    return Error(Errc::kInvalid,
                 "'" + path + "' is not on a mount of gradfs: go there, or write a path in gradfs, /" + path);
  }
  return GradfsPath{.path = normal_path(path), .master = ""};
}

}  // namespace gradfs
