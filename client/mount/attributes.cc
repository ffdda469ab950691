#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "client/mount/mount.h"

namespace gradfs {
namespace {

std::int64_t to_ns(const timespec& time) { return std::int64_t{time.tv_sec} * kSecond_ns + time.tv_nsec; }

void reply_bytes(const Request& request, const std::string& value, std::size_t size) {
  if (size == 0) return void(request.xattr_size(value.size()));
  if (value.size() > size) return void(request.error(ERANGE));
  request.bytes(value.data(), value.size());
}

bool name_allowed(const std::string& name) {
  return name.starts_with("user.") || name.starts_with("trusted.") || name.starts_with("security.");
}

}  // namespace

Task<> Mount::getattr(Request request, InodeId inode, std::uint64_t handle) {
  const auto found = nodes_.find(inode);
  const bool deleted = found != nodes_.end() && found->second.unlinked;
  wire::Attr attr;
  if (deleted) {
    attr = found->second.attr;
  } else {
    wire::InodeRequest ask;
    ask.set_inode(inode.value);
    auto known = co_await ask_master<rpc::GetAttr>(std::move(ask));
    if (!known && known.error().code == Errc::kNotFound && nodes_.contains(inode) && node(inode).opens > 0) {
      node(inode).unlinked = true;  // landed, or removed by another mount, and still open here
      attr = node(inode).attr;
    } else if (!known) {
      co_return reply_error(request, known.error());
    } else {
      attr = known.value().attr();
      remember(attr);
    }
  }
  const auto file = find_open(handle);
  if (file != nullptr && is_text(attr.role(), attr)) {
    attr.set_size(file->text.size());
  } else if (attr.role() == wire::STATUS) {
    auto text = co_await status_text(BindingId{attr.binding()});
    if (text) attr.set_size(text.value().size());
  }
  struct stat out = stat_of(attr);
  struct stat staged{};
  if (file != nullptr && file->staging_image.valid() && ::fstat(file->staging_image.get(), &staged) == 0) {
    out.st_size = staged.st_size;
  }
  request.attr(out, attr_timeout(attr));
}

// A size change of what is special, as open(O_TRUNC) and ftruncate send it; of anything else, of its image.
Task<Result<void>> Mount::truncate(InodeId inode, std::uint64_t size) {
  const wire::Attr attr = node(inode).attr;
  if (is_text(attr.role(), attr)) {
    bool any = false;
    for (auto& [handle, file] : open_files_) {
      if (file->inode != inode || !file->write) continue;
      file->text.resize(size);
      file->dirty = any = true;
    }
    if (!any) co_return Error(Errc::kPermission, "open it for writing");
    co_return ok();
  }
  if (attr.role() == wire::MODEL || attr.role() == wire::OPTIMIZER) {
    bool any = false;
    for (auto& [handle, file] : open_files_) {
      if (file->inode != inode || !file->staging_image.valid()) continue;
      if (::ftruncate(file->staging_image.get(), static_cast<off_t>(size)) != 0)
        co_return errno_error("ftruncate");
      any = true;
    }
    if (!any) co_return Error(Errc::kAccess, "a model never changes its size");
    co_return ok();
  }
  if (node(inode).image.valid()) {
    if (::ftruncate(node(inode).image.get(), static_cast<off_t>(size)) != 0)
      co_return errno_error("ftruncate");
    co_return ok();
  }
  GRADFS_CO_TRYV(co_await prepare_image(inode, false));
  Result<void> result = ok();
  if (::ftruncate(node(inode).image.get(), static_cast<off_t>(size)) != 0) result = errno_error("ftruncate");
  drop_open(inode, false);
  co_return result;
}

Task<> Mount::setattr(Request request, InodeId inode, struct stat attr, int valid, std::uint64_t handle) {
  if (!nodes_.contains(inode)) co_return void(request.error(ENOENT));
  const wire::Role role = node(inode).attr.role();
  const std::int64_t now = executor_.clock().wall_ns();
  wire::SetAttrRequest ask;
  ask.set_inode(inode.value);
  if ((valid & FUSE_SET_ATTR_SIZE) != 0) {
    auto cut = co_await truncate(inode, static_cast<std::uint64_t>(attr.st_size));
    if (!cut) co_return reply_error(request, cut.error());
    const bool fixed = role == wire::MODEL || role == wire::OPTIMIZER || is_text(role, node(inode).attr);
    if (!fixed) {
      ask.set_size(static_cast<std::uint64_t>(attr.st_size));
      ask.set_mtime_ns(now);
    }
  }
  if ((valid & FUSE_SET_ATTR_MODE) != 0) ask.set_mode(attr.st_mode & 07777);
  if ((valid & FUSE_SET_ATTR_UID) != 0) ask.set_uid(attr.st_uid);
  if ((valid & FUSE_SET_ATTR_GID) != 0) ask.set_gid(attr.st_gid);
  if ((valid & FUSE_SET_ATTR_ATIME) != 0) ask.set_atime_ns(to_ns(attr.st_atim));
  if ((valid & FUSE_SET_ATTR_MTIME) != 0) ask.set_mtime_ns(to_ns(attr.st_mtim));
  if ((valid & FUSE_SET_ATTR_ATIME_NOW) != 0) ask.set_atime_ns(now);
  if ((valid & FUSE_SET_ATTR_MTIME_NOW) != 0) ask.set_mtime_ns(now);
  const bool sets_mtime = ask.has_mtime_ns() && (valid & FUSE_SET_ATTR_SIZE) == 0;
  const std::int64_t mtime_ns = ask.mtime_ns();
  if (node(inode).unlinked) {  // nothing of it is in the namespace
    struct stat out = stat_of(node(inode).attr);
    co_return void(request.attr(out, 0));
  }
  auto done = co_await ask_master<rpc::SetAttr>(std::move(ask));
  if (!done) co_return reply_error(request, done.error());
  if (sets_mtime && nodes_.contains(inode) && node(inode).image.valid()) {
    const timespec times[2] = {{0, UTIME_OMIT}, {mtime_ns / kSecond_ns, mtime_ns % kSecond_ns}};
    if (::futimens(node(inode).image.get(), times) != 0)
      co_return reply_error(request, errno_error("futimens"));
  }
  wire::Attr now_attr = done.value().attr();
  remember(now_attr);
  if (const auto file = find_open(handle); file != nullptr && is_text(role, now_attr))
    now_attr.set_size(file->text.size());
  struct stat out = stat_of(now_attr);
  request.attr(out, attr_timeout(now_attr));
}

Task<> Mount::getxattr(Request request, InodeId inode, std::string name, std::size_t size) {
  // Asked before writes; nobody may set it, so no round trip.
  if (name == "security.capability") co_return void(request.error(ENODATA));
  if (!name_allowed(name)) co_return void(request.error(EOPNOTSUPP));
  if (role_of(inode) == wire::MODEL && name.starts_with("user.gradfs.")) {
    wire::ModelStatusRequest ask;
    ask.set_binding(binding_of(inode).value);
    auto client = co_await worker_of_binding(binding_of(inode));
    if (!client) co_return reply_error(request, client.error());
    const CallOptions options{.timeout_ns = options_.timeout_ns};
    auto status = co_await client.value()->call<rpc::ModelStatus>(std::move(ask), options);
    if (!status) co_return reply_error(request, status.error());
    if (name == "user.gradfs.version")
      co_return reply_bytes(request, std::to_string(status.value().version()), size);
    if (name == "user.gradfs.sequence")
      co_return reply_bytes(request, std::to_string(status.value().sequence()), size);
    if (name == "user.gradfs.optimizer") co_return reply_bytes(request, status.value().optimizer(), size);
  }
  if (nodes_.contains(inode) && !node(inode).attr.has_xattrs()) co_return void(request.error(ENODATA));
  wire::XattrRequest ask;
  ask.set_inode(inode.value);
  ask.set_name(name);
  auto value = co_await ask_master<rpc::GetXattr>(std::move(ask));
  if (!value) co_return reply_error(request, value.error());
  reply_bytes(request, value.value().value(), size);
}

Task<> Mount::setxattr(Request request, InodeId inode, std::string name, std::string value, int flags) {
  if (!name_allowed(name)) co_return void(request.error(EOPNOTSUPP));
  wire::XattrRequest ask;
  ask.set_inode(inode.value);
  ask.set_name(name);
  ask.set_value(value);
  ask.set_create((flags & XATTR_CREATE) != 0);
  ask.set_replace((flags & XATTR_REPLACE) != 0);
  auto done = co_await ask_master<rpc::SetXattr>(std::move(ask));
  if (!done) co_return reply_error(request, done.error());
  if (nodes_.contains(inode)) node(inode).attr.set_has_xattrs(true);
  request.error(0);
}

Task<> Mount::listxattr(Request request, InodeId inode, std::size_t size) {
  wire::XattrRequest ask;
  ask.set_inode(inode.value);
  auto names = co_await ask_master<rpc::ListXattr>(std::move(ask));
  if (!names) co_return reply_error(request, names.error());
  std::string all;
  for (const auto& name : names.value().names()) all += name + '\0';
  reply_bytes(request, all, size);
}

Task<> Mount::removexattr(Request request, InodeId inode, std::string name) {
  wire::XattrRequest ask;
  ask.set_inode(inode.value);
  ask.set_name(name);
  auto done = co_await ask_master<rpc::RemoveXattr>(std::move(ask));
  request.error(done ? 0 : to_errno(done.error().code));
}

Task<> Mount::statfs(Request request) {
  auto stats = co_await ask_master<rpc::StatFs>(wire::Empty());
  if (!stats) co_return reply_error(request, stats.error());
  constexpr std::uint64_t kBlock = 4096;
  struct statvfs out{};
  out.f_bsize = kBlock;
  out.f_frsize = kBlock;
  out.f_blocks = stats.value().total_bytes() / kBlock;
  out.f_bfree = stats.value().free_bytes() / kBlock;
  out.f_bavail = out.f_bfree;
  out.f_files = stats.value().inodes() + (1U << 30);
  out.f_ffree = 1U << 30;
  out.f_favail = out.f_ffree;
  out.f_namemax = 255;
  request.statfs(out);
}

}  // namespace gradfs
