#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/fsctl/commands.h"
#include "tools/fsctl/output.h"
#include "tools/fsctl/session.h"

namespace gradfs::fsctl {
namespace {

struct FilesArguments {
  std::string path;
  bool is_long = false;
  bool json = false;
};

const char* type_text(wire::FileType type) {
  switch (type) {
    case wire::REGULAR:
      return "file";
    case wire::DIRECTORY:
      return "directory";
    case wire::SYMLINK:
      return "symlink";
    default:
      return "unknown";
  }
}

std::string role_text(wire::Role role) {
  std::string text = role == wire::ROLE_NONE ? "none" : wire::Role_Name(role);
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::string mode_text(const wire::Attr& attr) {
  std::string out = attr.type() == wire::DIRECTORY ? "d" : attr.type() == wire::SYMLINK ? "l" : "-";
  for (int bit = 8; bit >= 0; --bit) out += (attr.mode() >> bit & 1) != 0 ? "rwx"[2 - bit % 3] : '-';
  if ((attr.mode() & S_ISVTX) != 0) out.back() = (attr.mode() & 1) != 0 ? 't' : 'T';
  return out;
}

std::string octal(std::uint32_t mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%04o", mode);
  return text;
}

nlohmann::json to_json(const std::string& name, const wire::Attr& attr) {
  nlohmann::json out = {{"name", name},
                        {"inode", format_id(attr.inode())},
                        {"type", type_text(attr.type())},
                        {"mode", octal(attr.mode())},
                        {"uid", attr.uid()},
                        {"gid", attr.gid()},
                        {"links", attr.link_count()},
                        {"size", attr.size()},
                        {"atime_ns", attr.atime_ns()},
                        {"mtime_ns", attr.mtime_ns()},
                        {"ctime_ns", attr.ctime_ns()},
                        {"role", role_text(attr.role())}};
  if (attr.binding() != 0) out["binding"] = format_id(attr.binding());
  if (attr.worker() != 0) out["worker"] = format_id(attr.worker());
  if (attr.type() == wire::SYMLINK) out["target"] = attr.symlink_target();
  return out;
}

void print_json(const nlohmann::json& json) {
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

void print_long(const std::vector<wire::DirectoryEntry>& entries) {
  std::vector<std::vector<std::string>> rows;
  for (const wire::DirectoryEntry& entry : entries) {
    const wire::Attr& attr = entry.attr();
    rows.push_back(
        {mode_text(attr), std::to_string(attr.link_count()), std::to_string(attr.uid()),
         std::to_string(attr.gid()), std::to_string(attr.size()), format_time(attr.mtime_ns()),
         attr.type() == wire::SYMLINK ? entry.name() + " -> " + attr.symlink_target() : entry.name()});
  }
  print_table(rows);
}

Task<Result<void>> list_path(Filesystem& filesystem, std::string path, const FilesArguments& arguments) {
  GRADFS_CO_TRY(Node node, co_await filesystem.resolve(path));
  std::vector<wire::DirectoryEntry> entries;
  if (node.attr.type() == wire::DIRECTORY) {
    GRADFS_CO_TRY(entries, co_await filesystem.list(node.inode()));
  } else {
    wire::DirectoryEntry entry;
    entry.set_name(node.name);
    *entry.mutable_attr() = node.attr;
    entries.push_back(std::move(entry));
  }
  if (arguments.json) {
    nlohmann::json out = nlohmann::json::array();
    for (const wire::DirectoryEntry& entry : entries) out.push_back(to_json(entry.name(), entry.attr()));
    print_json(out);
  } else if (arguments.is_long) {
    print_long(entries);
  } else {
    for (const wire::DirectoryEntry& entry : entries) std::printf("%s\n", printable(entry.name()).c_str());
  }
  co_return ok();
}

Task<Result<void>> stat_path(Filesystem& filesystem, std::string path, const FilesArguments& arguments) {
  GRADFS_CO_TRY(Node node, co_await filesystem.resolve(path, false));
  const wire::Attr& attr = node.attr;
  if (arguments.json) {
    nlohmann::json out = to_json(node.name, attr);
    out["path"] = path;
    print_json(out);
    co_return ok();
  }
  std::vector<std::vector<std::string>> rows{
      {"path", attr.type() == wire::SYMLINK ? path + " -> " + attr.symlink_target() : path},
      {"type", std::string(type_text(attr.type())) + (attr.is_inline() ? ", kept by the master" : "")},
      {"size", format_count(attr.size())},
      {"inode", format_id(attr.inode())},
      {"mode", octal(attr.mode()) + " " + mode_text(attr)},
      {"owner", std::to_string(attr.uid()) + ":" + std::to_string(attr.gid())},
      {"links", std::to_string(attr.link_count())},
      {"accessed", format_time(attr.atime_ns())},
      {"modified", format_time(attr.mtime_ns())},
      {"changed", format_time(attr.ctime_ns())}};
  if (attr.role() != wire::ROLE_NONE) rows.push_back({"role", role_text(attr.role())});
  if (attr.binding() != 0) rows.push_back({"binding", format_id(attr.binding())});
  if (attr.worker() != 0) rows.push_back({"worker", format_id(attr.worker())});
  print_table(rows);
  co_return ok();
}

}  // namespace

void add_files_commands(CLI::App& app, Action& action) {
  auto arguments = std::make_shared<FilesArguments>();
  auto* ls = app.add_subcommand("ls", "list a directory");
  ls->add_option("PATH", arguments->path, "path in gradfs or on a mount")->required();
  ls->add_flag("-l", arguments->is_long, "with mode, owner, size and time");
  ls->add_flag("--json", arguments->json, "as JSON");
  ls->callback([arguments, &action] {
    action = [arguments] {
      return run_path_command(arguments->path, [&](Filesystem& filesystem, std::string path) {
        return list_path(filesystem, std::move(path), *arguments);
      });
    };
  });
  auto* stat = app.add_subcommand("stat", "what gradfs knows of a file; symbolic links are not followed");
  stat->add_option("PATH", arguments->path, "path in gradfs or on a mount")->required();
  stat->add_flag("--json", arguments->json, "as JSON");
  stat->callback([arguments, &action] {
    action = [arguments] {
      return run_path_command(arguments->path, [&](Filesystem& filesystem, std::string path) {
        return stat_path(filesystem, std::move(path), *arguments);
      });
    };
  });
}

}  // namespace gradfs::fsctl
