// Names and inodes: create, remove, set attributes.
#include <algorithm>

#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

constexpr std::uint32_t kModeMask = 07777;
constexpr std::uint32_t kSetGroupId = 02000;

void touch(Transaction& txn, stored::Inode& directory) {
  directory.mutable_attr()->set_mtime_ns(txn.now_ns());
  directory.mutable_attr()->set_ctime_ns(txn.now_ns());
}

Result<wire::AttrResponse> open_existing(Transaction& txn, const wire::CreateRequest& request,
                                         std::uint64_t id) {
  if (request.exclusive() || request.type() != wire::REGULAR) return Error(Errc::kExists);
  GRADFS_TRY(auto inode, txn.inode(id));
  if (inode.attr().type() == wire::DIRECTORY) return Error(Errc::kIsDirectory);
  if (inode.attr().type() != wire::REGULAR) return Error(Errc::kExists);
  if (request.open_for_write()) {
    GRADFS_TRYV(record_lease(txn, request.session(), id));
  }
  return attr_response(inode);
}

// The home of the image: where the binding of the directory is, else where the entry says.
Result<void> set_home(Transaction& txn, const stored::Inode& parent, stored::Inode& inode) {
  std::uint64_t worker = txn.entry().worker();
  if (parent.attr().binding() != 0) {
    GRADFS_TRY(auto binding, txn.binding(parent.attr().binding()));
    worker = binding.worker();
  }
  if (worker == 0) return Error(Errc::kUnavailable, "no worker has registered yet");
  inode.mutable_attr()->set_worker(worker);
  return ok();
}

}  // namespace

Result<void> check_name(std::string_view name) {
  if (name.empty()) return Error(Errc::kNotFound, "empty name");
  if (name.size() > kNameMax_bytes) return Error(Errc::kNameTooLong);
  if (name == "." || name == ".." || name.find('/') != name.npos || name.find('\0') != name.npos) {
    return Error(Errc::kInvalid, "name");
  }
  return ok();
}

stored::Inode new_inode(Transaction& txn, wire::FileType type, std::uint32_t mode, std::uint32_t uid,
                        std::uint32_t gid) {
  stored::Inode inode;
  wire::Attr& attr = *inode.mutable_attr();
  attr.set_inode(txn.new_id());
  attr.set_type(type);
  attr.set_mode(mode & kModeMask);
  attr.set_uid(uid);
  attr.set_gid(gid);
  attr.set_link_count(type == wire::DIRECTORY ? 1 : 0);  // a directory's own "."
  attr.set_size(type == wire::DIRECTORY ? kDirectorySize_bytes : 0);
  attr.set_atime_ns(txn.now_ns());
  attr.set_mtime_ns(txn.now_ns());
  attr.set_ctime_ns(txn.now_ns());
  txn.header().set_inodes(txn.header().inodes() + 1);
  return inode;
}

Result<void> add_entry(Transaction& txn, std::uint64_t parent, const std::string& name,
                       stored::Inode& inode) {
  GRADFS_TRY(auto directory, txn.directory(parent));
  touch(txn, directory);
  const bool is_directory = inode.attr().type() == wire::DIRECTORY;
  if (is_directory) directory.mutable_attr()->set_link_count(directory.attr().link_count() + 1);
  txn.put_inode(directory);
  txn.put_number(keys::entry(parent, name), inode.attr().inode());
  if (is_directory || inode.attr().link_count() == 0) {
    inode.set_parent(parent);
    inode.set_name(name);
  }
  inode.mutable_attr()->set_link_count(inode.attr().link_count() + 1);
  inode.mutable_attr()->set_ctime_ns(txn.now_ns());
  return ok();
}

Result<void> remove_entry(Transaction& txn, std::uint64_t parent, const std::string& name,
                          bool is_directory) {
  GRADFS_TRY(auto directory, txn.directory(parent));
  touch(txn, directory);
  if (is_directory) directory.mutable_attr()->set_link_count(directory.attr().link_count() - 1);
  txn.put_inode(directory);
  txn.erase(keys::entry(parent, name));
  return ok();
}

void drop_image(Transaction& txn, const wire::Attr& attr) {
  if (attr.worker() == 0 || attr.type() != wire::REGULAR) return;
  txn.put_number(keys::command(keys::kDropImage, attr.worker(), attr.inode()), txn.entry().index());
  txn.erase(keys::command(keys::kCommitInode, attr.worker(), attr.inode()));
}

Result<void> settle(Transaction& txn, const stored::Inode& inode) {
  if (inode.attr().link_count() > 0 || inode.pins() > 0 || inode.allocated()) {
    txn.put_inode(inode);
    return ok();
  }
  const std::uint64_t id = inode.attr().inode();
  GRADFS_TRY(auto attributes, txn.scan_prefix(keys::xattrs(id)));
  for (auto& row : attributes) txn.erase(std::move(row.key));
  txn.erase(keys::inode(id));
  txn.header().set_inodes(txn.header().inodes() - 1);
  drop_image(txn, inode.attr());
  return ok();
}

Result<wire::Attr> drop_link(Transaction& txn, stored::Inode inode) {
  const bool is_directory = inode.attr().type() == wire::DIRECTORY;
  inode.mutable_attr()->set_link_count(is_directory ? 0 : inode.attr().link_count() - 1);
  inode.mutable_attr()->set_ctime_ns(txn.now_ns());
  if (inode.attr().link_count() == 0) clear_role(inode);
  GRADFS_TRYV(settle(txn, inode));
  return inode.attr();
}

Result<void> drop_pin(Transaction& txn, std::uint64_t id) {
  auto inode = txn.inode(id);
  if (!inode && inode.error().code == Errc::kNotFound) return ok();
  if (!inode) return std::move(inode).error();
  if (inode.value().pins() > 0) inode.value().set_pins(inode.value().pins() - 1);
  return settle(txn, inode.value());
}

void end_allocation(Transaction& txn, stored::Inode& inode) {
  if (!inode.allocated()) return;
  txn.erase(keys::allocation(inode.allocated_session(), inode.attr().inode()));
  inode.clear_allocated();
  inode.clear_allocated_session();
}

Result<wire::AttrResponse> set_attr(Transaction& txn, const wire::SetAttrRequest& request) {
  GRADFS_TRY(auto inode, txn.inode(request.inode()));
  wire::Attr& attr = *inode.mutable_attr();
  if (request.has_mode()) attr.set_mode(request.mode() & kModeMask);
  if (request.has_uid()) attr.set_uid(request.uid());
  if (request.has_gid()) attr.set_gid(request.gid());
  if (request.has_size()) {
    if (attr.type() == wire::DIRECTORY) return Error(Errc::kIsDirectory);
    if (attr.type() != wire::REGULAR) return Error(Errc::kInvalid);
    if (attr.is_inline() && request.size() > kInlineMax_bytes) return Error(Errc::kTooBig, "inline file");
    if (attr.is_inline()) inode.mutable_inline_data()->resize(request.size());
    attr.set_size(request.size());
    attr.clear_blocks();
    attr.set_mtime_ns(txn.now_ns());
  }
  if (request.has_atime_ns()) attr.set_atime_ns(request.atime_ns());
  if (request.has_mtime_ns()) attr.set_mtime_ns(request.mtime_ns());
  attr.set_ctime_ns(request.has_ctime_ns() ? request.ctime_ns() : txn.now_ns());
  txn.put_inode(inode);
  return attr_response(inode);
}

Result<wire::AttrResponse> create(Transaction& txn, const wire::CreateRequest& request) {
  GRADFS_TRYV(check_name(request.name()));
  GRADFS_TRY(auto parent, txn.directory(request.parent()));
  GRADFS_TRY(auto existing, txn.entry(request.parent(), request.name()));
  if (existing) return open_existing(txn, request, *existing);
  const bool is_directory = request.type() == wire::DIRECTORY;
  if (request.type() == wire::SYMLINK) {
    if (request.symlink_target().empty()) return Error(Errc::kNotFound, "empty target");
    if (request.symlink_target().size() > kSymlinkMax_bytes) return Error(Errc::kNameTooLong);
  } else if (request.type() != wire::REGULAR && !is_directory) {
    return Error(Errc::kNotSupported, "only files, directories and symbolic links");
  }
  const bool inherits_group = (parent.attr().mode() & kSetGroupId) != 0;
  const std::uint32_t mode = request.type() == wire::SYMLINK ? 0777 : request.mode();
  stored::Inode inode =
      new_inode(txn, request.type(), mode | (inherits_group && is_directory ? kSetGroupId : 0), request.uid(),
                inherits_group ? parent.attr().gid() : request.gid());
  if (request.type() == wire::SYMLINK) {
    inode.mutable_attr()->set_symlink_target(request.symlink_target());
    inode.mutable_attr()->set_size(request.symlink_target().size());
  }
  GRADFS_TRYV(assign_role(txn, parent, request.name(), inode));
  if (request.type() == wire::REGULAR && !inode.attr().is_inline()) {
    GRADFS_TRYV(set_home(txn, parent, inode));
  }
  GRADFS_TRYV(add_entry(txn, request.parent(), request.name(), inode));
  txn.put_inode(inode);
  if (request.open_for_write()) {
    GRADFS_TRYV(record_lease(txn, request.session(), inode.attr().inode()));
  }
  return attr_response(inode);
}

Result<wire::AttrResponse> unlink(Transaction& txn, const wire::RemoveRequest& request) {
  GRADFS_TRY(auto directory, txn.directory(request.parent()));
  GRADFS_TRY(auto id, txn.entry(request.parent(), request.name()));
  if (!id) return Error(Errc::kNotFound);
  GRADFS_TRY(auto inode, txn.inode(*id));
  if (inode.attr().type() == wire::DIRECTORY) return Error(Errc::kIsDirectory);
  if (inode.attr().role() == wire::MODEL) {
    GRADFS_TRYV(remove_binding(txn, inode.attr().binding()));
    GRADFS_TRY(inode, txn.inode(*id));
  }
  GRADFS_TRYV(remove_entry(txn, request.parent(), request.name(), false));
  wire::AttrResponse response;
  GRADFS_TRY(*response.mutable_attr(), drop_link(txn, std::move(inode)));
  return response;
}

Result<wire::Empty> rmdir(Transaction& txn, const wire::RemoveRequest& request) {
  GRADFS_TRY(auto directory, txn.directory(request.parent()));
  GRADFS_TRY(auto id, txn.entry(request.parent(), request.name()));
  if (!id) return Error(Errc::kNotFound);
  GRADFS_TRY(auto inode, txn.directory(*id));
  GRADFS_TRY(auto rows, txn.scan_prefix(keys::entries(*id), 1));
  if (!rows.empty()) return Error(Errc::kNotEmpty);
  if (inode.attr().role() == wire::MODEL_DIR) {
    GRADFS_TRYV(remove_binding(txn, inode.attr().binding()));
    GRADFS_TRY(inode, txn.inode(*id));
  }
  GRADFS_TRYV(remove_entry(txn, request.parent(), request.name(), true));
  GRADFS_TRYV(drop_link(txn, std::move(inode)));
  return wire::Empty();
}

}  // namespace gradfs::ops
