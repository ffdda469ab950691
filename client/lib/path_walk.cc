// Filesystem's walk along a path.
#include <algorithm>
#include <deque>
#include <string_view>

#include "client/lib/filesystem.h"

namespace gradfs {
namespace {

// Puts the parts of `path` before those that are left.
void push_parts(std::deque<std::string>& left, std::string_view path) {
  std::deque<std::string> parts;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    if (end > 0 && path.substr(0, end) != ".") parts.emplace_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  left.insert(left.begin(), parts.begin(), parts.end());
}

}  // namespace

Task<Result<Node>> Filesystem::step(Node from, std::string name, bool make) {
  wire::LookupRequest request;
  request.set_parent(from.attr.inode());
  request.set_name(name);
  const CallOptions options{.timeout_ns = kCallTimeout_ns};
  Node next;
  next.parent = from.inode();
  next.name = name;
  auto found = co_await master().call<rpc::Lookup>(request, options);
  if (!found && found.error().code == Errc::kNotFound && make) {
    auto made = co_await make_directory(next.parent, name);
    if (made) {
      next.attr = made.value();
      co_return next;
    }
    if (made.error().code != Errc::kExists) co_return std::move(made).error();
    found = co_await master().call<rpc::Lookup>(request, options);  // somebody else has made it
  }
  if (!found) co_return std::move(found).error();
  next.attr = found.value().attr();
  co_return next;
}

Task<Result<Node>> Filesystem::walk(std::string path, bool follow_last, bool make) {
  GRADFS_CO_TRY(wire::Attr root, co_await attributes(kRootInode));
  std::vector<Node> trail(1);  // from the root to where the walk is
  trail[0].attr = std::move(root);
  trail[0].parent = kRootInode;
  std::deque<std::string> left;
  push_parts(left, path);
  int links = 0;
  while (!left.empty()) {
    const std::string name = std::move(left.front());
    left.pop_front();
    if (name == "..") {
      if (trail.size() > 1) trail.pop_back();
      continue;
    }
    if (trail.back().attr.type() != wire::DIRECTORY) {
      co_return Error(Errc::kNotDirectory, path + ": '" + trail.back().name + "' is not a directory");
    }
    auto next = co_await step(trail.back(), name, make);
    if (!next) {
      const bool missing = next.error().code == Errc::kNotFound;
      if (missing) co_return Error(Errc::kNotFound, path + ": no such file or directory in gradfs");
      co_return about(path, next.error());
    }
    if (next.value().attr.type() == wire::SYMLINK && (follow_last || !left.empty())) {
      if (++links > kSymlinksMax) co_return Error(Errc::kLoop, path + ": too many symbolic links");
      const std::string& target = next.value().attr.symlink_target();
      if (target.starts_with('/')) trail.resize(1);
      push_parts(left, target);
      continue;
    }
    trail.push_back(std::move(next).value());
  }
  co_return std::move(trail.back());
}

Task<Result<Node>> Filesystem::resolve(std::string path, bool follow_last) {
  return walk(std::move(path), follow_last, false);
}

Task<Result<Node>> Filesystem::make_directories(std::string path) {
  GRADFS_CO_TRY(Node node, co_await walk(path, true, true));
  if (node.attr.type() != wire::DIRECTORY) co_return Error(Errc::kNotDirectory, path + " is not a directory");
  co_return node;
}

}  // namespace gradfs
