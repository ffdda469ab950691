#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

bool is_fixed(wire::Role role) {
  return role == wire::MODEL || role == wire::OPTIMIZER || role == wire::STATUS ||
         role == wire::GRADIENTS_DIR || role == wire::SLOTS_DIR || role == wire::REJECTED_DIR;
}

bool is_reserved(std::string_view name) {
  return name == kModelName || name == kOptimizerName || name == kConfigName || name == kStatusName;
}

// kInvalid where `directory` is `inode` or lies below it.
Result<void> check_not_below(Transaction& txn, std::uint64_t directory, std::uint64_t inode) {
  for (std::size_t depth = 0; depth < kPathDepthMax; ++depth) {
    if (directory == inode) return Error(Errc::kInvalid, "a directory cannot go into itself");
    if (directory == kRootInode.value) return ok();
    GRADFS_TRY(auto next, txn.directory(directory));
    directory = next.parent();
  }
  return Error(Errc::kLoop);
}

Result<void> replace_target(Transaction& txn, const wire::RenameRequest& request, bool source_is_directory,
                            std::uint64_t target_id) {
  if (request.no_replace()) return Error(Errc::kExists);
  GRADFS_TRY(auto target, txn.inode(target_id));
  const bool is_directory = target.attr().type() == wire::DIRECTORY;
  if (source_is_directory && !is_directory) return Error(Errc::kNotDirectory);
  if (!source_is_directory && is_directory) return Error(Errc::kIsDirectory);
  if (is_directory) {
    GRADFS_TRY(auto rows, txn.scan_prefix(keys::entries(target_id), 1));
    if (!rows.empty()) return Error(Errc::kNotEmpty);
  }
  if (is_fixed(target.attr().role())) return Error(Errc::kBusy, "it belongs to a model");
  GRADFS_TRYV(remove_entry(txn, request.new_parent(), request.new_name(), is_directory));
  GRADFS_TRYV(drop_link(txn, std::move(target)));
  return ok();
}

}  // namespace

Result<wire::AttrResponse> rename(Transaction& txn, const wire::RenameRequest& request) {
  GRADFS_TRYV(check_name(request.name()));
  GRADFS_TRYV(check_name(request.new_name()));
  GRADFS_TRYV(txn.directory(request.parent()));
  GRADFS_TRYV(txn.directory(request.new_parent()));
  GRADFS_TRY(auto source_id, txn.entry(request.parent(), request.name()));
  if (!source_id) return Error(Errc::kNotFound);
  GRADFS_TRY(auto inode, txn.inode(*source_id));
  GRADFS_TRY(auto target_id, txn.entry(request.new_parent(), request.new_name()));
  if (target_id && *target_id == *source_id) {
    if (request.no_replace()) return Error(Errc::kExists);
    return attr_response(inode);
  }
  if (is_fixed(inode.attr().role())) return Error(Errc::kPermission, "it belongs to a model");
  const bool is_directory = inode.attr().type() == wire::DIRECTORY;
  if (is_directory) {
    GRADFS_TRYV(check_not_below(txn, request.new_parent(), *source_id));
  }
  GRADFS_TRY(auto new_parent, txn.directory(request.new_parent()));
  if (new_parent.attr().role() == wire::MODEL_DIR && is_reserved(request.new_name())) {
    return Error(Errc::kBusy, "a change of a model's file is a push");
  }
  if (target_id) {
    GRADFS_TRYV(replace_target(txn, request, is_directory, *target_id));
  }

  GRADFS_TRYV(remove_entry(txn, request.parent(), request.name(), is_directory));
  const std::uint32_t links = inode.attr().link_count();
  GRADFS_TRYV(add_entry(txn, request.new_parent(), request.new_name(), inode));
  inode.mutable_attr()->set_link_count(links);
  if (inode.parent() == request.parent() && inode.name() == request.name()) {
    inode.set_parent(request.new_parent());
    inode.set_name(request.new_name());
  }
  if (inode.attr().role() != wire::MODEL_DIR) {
    clear_role(inode);
    GRADFS_TRYV(assign_role(txn, new_parent, request.new_name(), inode));
  }
  txn.put_inode(inode);
  return attr_response(inode);
}

}  // namespace gradfs::ops
