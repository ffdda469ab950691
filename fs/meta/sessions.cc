// Sessions: the lives of mounts, what they have open for writing, and what they have allocated.
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

constexpr std::string_view kLostReason = "its mount was lost before it was closed";

// What the image holds is what there is: its worker reports size and time. A gradient that was not closed did
// not land; it goes to rejected/.
Result<void> end_lost_lease(Transaction& txn, std::uint64_t id) {
  auto found = txn.inode(id);
  if (!found && found.error().code == Errc::kNotFound) return ok();
  if (!found) return std::move(found).error();
  const stored::Inode& inode = found.value();
  if (inode.attr().worker() != 0) {
    txn.put_number(keys::command(keys::kCommitInode, inode.attr().worker(), id), txn.entry().index());
  }
  if (inode.attr().role() != wire::GRADIENT || inode.name().starts_with(".")) return ok();
  return reject_lost(txn, inode, std::string(kLostReason));
}

}  // namespace

Result<void> check_session(Transaction& txn, std::uint64_t session) {
  if (session == 0) return ok();
  GRADFS_TRY(auto row, txn.get(keys::session(session)));
  if (!row) return Error(Errc::kStaleEpoch, "the session has ended");
  return ok();
}

Result<void> record_lease(Transaction& txn, std::uint64_t session, std::uint64_t inode) {
  if (session == 0) return ok();
  GRADFS_TRYV(check_session(txn, session));
  txn.put(keys::lease(session, inode), "");
  return ok();
}

Result<wire::OpenSessionResponse> open_session(Transaction& txn, const wire::OpenSessionRequest& request) {
  if (request.session() >= txn.entry().first_id())
    return Error(Errc::kInvalid, "no session was ever that number");
  GRADFS_TRY(auto found, txn.find<stored::Session>(keys::session(request.session())));
  stored::Session session = found.value_or(stored::Session());
  if (!found) {
    session.set_session(request.session() != 0 ? request.session() : txn.new_id());
    session.set_opened_ns(txn.now_ns());
  }
  session.set_host(request.host());
  session.set_mount_point(request.mount_point());
  txn.put_message(keys::session(session.session()), session);
  wire::OpenSessionResponse response;
  response.set_session(session.session());
  return response;
}

Result<wire::Empty> close_session(Transaction& txn, const wire::SessionRequest& request) {
  const std::uint64_t id = request.session();
  if (id == 0) return Error(Errc::kInvalid, "session");
  GRADFS_TRY(auto row, txn.get(keys::session(id)));
  if (!row) return wire::Empty();
  GRADFS_TRY(auto leases, txn.scan_prefix(keys::leases(id)));
  for (const auto& lease : leases) {
    GRADFS_TRYV(end_lost_lease(txn, keys::number_at(lease.key, 9)));
    txn.erase(lease.key);
  }
  GRADFS_TRY(auto allocations, txn.scan_prefix(keys::allocations(id)));
  for (const auto& allocation : allocations) {
    GRADFS_TRY(auto inode, txn.inode(keys::number_at(allocation.key, 9)));
    end_allocation(txn, inode);
    GRADFS_TRYV(settle(txn, inode));
  }
  txn.erase(keys::session(id));
  txn.erase(keys::outcome_count(id));
  txn.erase_prefix(keys::outcomes(id));
  txn.erase_prefix(keys::outcome_slots(id));
  return wire::Empty();
}

Result<wire::AttrResponse> open_file(Transaction& txn, const wire::OpenRequest& request) {
  GRADFS_TRY(auto inode, txn.inode(request.inode()));
  if (inode.attr().type() == wire::DIRECTORY) return Error(Errc::kIsDirectory);
  if (inode.attr().type() != wire::REGULAR) return Error(Errc::kLoop);
  if (request.write()) {
    GRADFS_TRYV(record_lease(txn, request.session(), request.inode()));
  }
  wire::AttrResponse response = attr_response(inode);
  if (inode.attr().is_inline()) response.set_inline_data(inode.inline_data());
  return response;
}

Result<wire::Empty> close_file(Transaction& txn, const wire::CloseRequest& request) {
  if (request.session() != 0 && request.end_lease())
    txn.erase(keys::lease(request.session(), request.inode()));
  auto found = txn.inode(request.inode());
  if (!found && found.error().code == Errc::kNotFound) return wire::Empty();  // it was removed meanwhile
  if (!found) return std::move(found).error();
  stored::Inode inode = std::move(found).value();
  wire::Attr& attr = *inode.mutable_attr();
  if (request.session() == 0) txn.erase(keys::command(keys::kCommitInode, attr.worker(), request.inode()));
  if (attr.type() != wire::REGULAR || attr.is_inline()) return wire::Empty();
  const bool moved = request.mtime_ns() > 0 && attr.mtime_ns() != request.mtime_ns();
  if (moved || attr.size() != request.size()) attr.set_ctime_ns(txn.now_ns());
  if (moved) attr.set_mtime_ns(request.mtime_ns());
  attr.set_size(request.size());
  attr.clear_blocks();
  if (request.has_blocks()) attr.set_blocks(request.blocks());
  txn.put_inode(inode);
  return wire::Empty();
}

Result<wire::AttrResponse> allocate_inode(Transaction& txn, const wire::AllocateInodeRequest& request) {
  GRADFS_TRYV(check_session(txn, request.session()));
  const std::uint64_t worker = request.worker() != 0 ? request.worker() : txn.entry().worker();
  if (worker == 0) return Error(Errc::kUnavailable, "no worker has registered yet");
  stored::Inode inode = new_inode(txn, wire::REGULAR, request.mode(), request.uid(), request.gid());
  inode.mutable_attr()->set_worker(worker);
  inode.set_allocated(true);
  inode.set_allocated_session(request.session());
  txn.put(keys::allocation(request.session(), inode.attr().inode()), "");
  txn.put_inode(inode);
  return attr_response(inode);
}

}  // namespace gradfs::ops
