// rejected/: what was refused, under its own name, with the reason.
#include <algorithm>

#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

constexpr std::string_view kReasonXattr = "user.gradfs.reason";
constexpr unsigned kVersionsMax = 100000;
constexpr std::uint32_t kNoteMode = 0600;

void set_reason(Transaction& txn, stored::Inode& inode, const std::string& reason) {
  txn.put(keys::xattr(inode.attr().inode(), kReasonXattr), reason);
  inode.mutable_attr()->set_has_xattrs(true);
}

// NAME~1, NAME~2, ...: the first that is free.
Result<std::string> free_name(Transaction& txn, std::uint64_t directory, const std::string& name) {
  for (unsigned version = 1; version < kVersionsMax; ++version) {
    const std::string suffix = "~" + std::to_string(version);
    const std::string candidate = name.substr(0, kNameMax_bytes - suffix.size()) + suffix;
    GRADFS_TRY(auto taken, txn.entry(directory, candidate));
    if (!taken) return candidate;
  }
  return Error(Errc::kNoSpace, std::string(kRejectedName));
}

// Makes `name` free: the file that has it gets another.
Result<void> move_aside(Transaction& txn, std::uint64_t directory, const std::string& name,
                        std::uint64_t id) {
  GRADFS_TRY(auto older, txn.inode(id));
  GRADFS_TRY(auto other, free_name(txn, directory, name));
  txn.erase(keys::entry(directory, name));
  txn.put_number(keys::entry(directory, other), id);
  if (older.parent() == directory && older.name() == name) older.set_name(other);
  txn.put_inode(older);
  return ok();
}

// Removes the oldest files until `keep` are left; never `newest`.
Result<void> trim(Transaction& txn, std::uint64_t directory, std::size_t keep, std::uint64_t newest) {
  struct Kept {
    std::int64_t ctime_ns;
    std::string name;
    stored::Inode inode;
  };
  const std::string prefix = keys::entries(directory);
  GRADFS_TRY(auto rows, txn.scan_prefix(prefix));
  if (rows.size() <= keep) return ok();
  std::vector<Kept> files;
  for (const auto& row : rows) {
    GRADFS_TRY(auto inode, txn.inode(keys::number_at(row.value, 0)));
    if (inode.attr().type() == wire::DIRECTORY || inode.attr().inode() == newest) continue;
    files.push_back({inode.attr().ctime_ns(), row.key.substr(prefix.size()), std::move(inode)});
  }
  const std::size_t excess = std::min(rows.size() - keep, files.size());
  std::sort(files.begin(), files.end(), [](const Kept& a, const Kept& b) {
    return std::pair(a.ctime_ns, a.inode.attr().inode()) < std::pair(b.ctime_ns, b.inode.attr().inode());
  });
  for (std::size_t i = 0; i < excess; ++i) {
    GRADFS_TRYV(remove_entry(txn, directory, files[i].name, false));
    // Fresh: two names may mean one inode.
    GRADFS_TRY(auto inode, txn.inode(files[i].inode.attr().inode()));
    GRADFS_TRYV(drop_link(txn, std::move(inode)));
  }
  return ok();
}

// Links the inode into rejected/ with the reason.
Result<void> place(Transaction& txn, std::uint64_t directory, stored::Inode inode, std::string name,
                   const std::string& reason, std::size_t keep) {
  const bool was_staged = inode.allocated();
  end_allocation(txn, inode);
  if (inode.attr().link_count() == 0) clear_role(inode);
  auto rejected = txn.directory(directory);
  if (!rejected && rejected.error().code == Errc::kNotFound) return settle(txn, inode);  // it was removed
  if (!rejected) return std::move(rejected).error();
  if (was_staged) {  // made by a daemon for somebody: it belongs to whom the model belongs to
    inode.mutable_attr()->set_uid(rejected.value().attr().uid());
    inode.mutable_attr()->set_gid(rejected.value().attr().gid());
  }
  if (!check_name(name)) name = "unnamed";
  GRADFS_TRY(auto taken, txn.entry(directory, name));
  const std::uint64_t id = inode.attr().inode();
  set_reason(txn, inode, reason);
  if (!taken || *taken != id) {
    if (taken) {
      GRADFS_TRYV(move_aside(txn, directory, name, *taken));
    }
    GRADFS_TRYV(add_entry(txn, directory, name, inode));
  }
  txn.put_inode(inode);
  return trim(txn, directory, keep, id);
}

// The number stays used, so that the sequence has no gap; its step may come again.
Result<void> make_void(Transaction& txn, std::uint64_t binding, std::uint64_t sequence) {
  const std::string row_key = keys::push(binding, sequence);
  GRADFS_TRY(auto row, txn.find<stored::Push>(row_key));
  if (!row) return Error(Errc::kInvalid, "a number that is not pending");
  row->mutable_push()->set_is_void(true);
  const wire::StepKey& key = row->push().key();
  if (!key.worker().empty()) {
    const std::string step_key = keys::step(binding, key.run(), key.worker(), key.step());
    GRADFS_TRY(auto holder, txn.number(step_key));
    if (holder == sequence) txn.erase(step_key);
  }
  txn.put_message(row_key, *row);
  return ok();
}

}  // namespace

Result<wire::Empty> reject_push(Transaction& txn, const wire::RejectPushRequest& request) {
  GRADFS_TRY(auto binding, txn.binding(request.binding()));
  GRADFS_TRY(auto known, find_outcome(txn, request.identity()));
  const std::uint64_t voided = request.void_sequence();
  if (known && (voided == 0 || known->error() != 0 || known->sequence() != voided)) return wire::Empty();
  stored::Outcome outcome;
  outcome.set_binding(request.binding());
  outcome.set_error(request.error());
  outcome.set_reason(request.reason());
  if (voided != 0) {
    GRADFS_TRYV(make_void(txn, request.binding(), voided));
  }
  if (known) {
    const wire::Identity& identity = request.identity();
    txn.put_message(keys::outcome(identity.session(), identity.inode(), identity.ordinal()), outcome);
  } else {
    GRADFS_TRYV(put_outcome(txn, request.identity(), outcome));
  }
  binding.mutable_state()->set_refused(binding.state().refused() + 1);
  txn.put_binding(binding);

  GRADFS_TRY(auto found, txn.find<stored::Inode>(keys::inode(request.inode())));
  stored::Inode inode;
  if (found) {
    inode = std::move(*found);
    GRADFS_TRYV(consume_entries(txn, request.consume(), &inode));
    if (request.size() > 0) inode.mutable_attr()->set_size(request.size());
  } else {
    if (request.inline_data().size() > kInlineMax_bytes) return Error(Errc::kTooBig);
    GRADFS_TRY(auto directory, txn.directory(binding.state().directory()));
    GRADFS_TRYV(consume_entries(txn, request.consume(), nullptr));
    inode = new_inode(txn, wire::REGULAR, kNoteMode, directory.attr().uid(), directory.attr().gid());
    make_inline(txn, inode, request.inline_data());
  }
  const std::size_t keep = request.keep() > 0 ? request.keep() : kRejectedKept;
  GRADFS_TRYV(
      place(txn, binding.state().rejected_dir(), std::move(inode), request.name(), request.reason(), keep));
  return wire::Empty();
}

Result<void> reject_lost(Transaction& txn, stored::Inode inode, const std::string& reason) {
  GRADFS_TRY(auto binding, txn.binding(inode.attr().binding()));
  const std::uint64_t parent = inode.parent();
  const std::string name = inode.name();
  GRADFS_TRY(auto named, txn.entry(parent, name));
  if (!named || *named != inode.attr().inode()) return ok();
  GRADFS_TRYV(remove_entry(txn, parent, name, false));
  inode.mutable_attr()->set_link_count(inode.attr().link_count() - 1);
  inode.mutable_attr()->set_ctime_ns(txn.now_ns());
  binding.mutable_state()->set_refused(binding.state().refused() + 1);
  txn.put_binding(binding);
  return place(txn, binding.state().rejected_dir(), std::move(inode), name, reason, kRejectedKept);
}

}  // namespace gradfs::ops
