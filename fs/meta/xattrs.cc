#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

Result<void> check_xattr_name(std::string_view name) {
  if (name.empty() || name.find('\0') != name.npos) return Error(Errc::kInvalid, "attribute name");
  if (name.size() > kXattrNameMax_bytes) return Error(Errc::kRange, "attribute name");
  return ok();
}

}  // namespace

Result<wire::Empty> set_xattr(Transaction& txn, const wire::XattrRequest& request) {
  GRADFS_TRYV(check_xattr_name(request.name()));
  if (request.value().size() > kXattrValueMax_bytes) return Error(Errc::kTooBig, "attribute value");
  GRADFS_TRY(auto inode, txn.inode(request.inode()));
  GRADFS_TRY(auto old, txn.get(keys::xattr(request.inode(), request.name())));
  if (request.create() && old) return Error(Errc::kExists);
  if (request.replace() && !old) return Error(Errc::kNoAttribute);
  if (!old && inode.attr().has_xattrs()) {
    GRADFS_TRY(auto rows, txn.scan_prefix(keys::xattrs(request.inode()), kXattrsMax));
    if (rows.size() >= kXattrsMax) return Error(Errc::kNoSpace, "128 attributes");
  }
  txn.put(keys::xattr(request.inode(), request.name()), request.value());
  inode.mutable_attr()->set_has_xattrs(true);
  inode.mutable_attr()->set_ctime_ns(txn.now_ns());
  txn.put_inode(inode);
  return wire::Empty();
}

Result<wire::Empty> remove_xattr(Transaction& txn, const wire::XattrRequest& request) {
  GRADFS_TRYV(check_xattr_name(request.name()));
  GRADFS_TRY(auto inode, txn.inode(request.inode()));
  GRADFS_TRY(auto old, txn.get(keys::xattr(request.inode(), request.name())));
  if (!old) return Error(Errc::kNoAttribute);
  txn.erase(keys::xattr(request.inode(), request.name()));
  GRADFS_TRY(auto left, txn.scan_prefix(keys::xattrs(request.inode()), 1));
  inode.mutable_attr()->set_has_xattrs(!left.empty());
  inode.mutable_attr()->set_ctime_ns(txn.now_ns());
  txn.put_inode(inode);
  return wire::Empty();
}

Result<wire::XattrResponse> get_xattr(Transaction& txn, const wire::XattrRequest& request) {
  GRADFS_TRYV(check_xattr_name(request.name()));
  GRADFS_TRYV(txn.inode(request.inode()));
  GRADFS_TRY(auto value, txn.get(keys::xattr(request.inode(), request.name())));
  if (!value) return Error(Errc::kNoAttribute);
  wire::XattrResponse response;
  response.set_value(std::move(*value));
  return response;
}

Result<wire::XattrResponse> list_xattr(Transaction& txn, const wire::XattrRequest& request) {
  GRADFS_TRYV(txn.inode(request.inode()));
  const std::string prefix = keys::xattrs(request.inode());
  GRADFS_TRY(auto rows, txn.scan_prefix(prefix));
  wire::XattrResponse response;
  for (const auto& row : rows) response.add_names(row.key.substr(prefix.size()));
  return response;
}

}  // namespace gradfs::ops
