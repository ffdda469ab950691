// Workers: who they are, and what they were told to delete.
#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

// The worker has applied numbers that the master's host lost with its power: they are never given again.
Result<void> adopt(Transaction& txn, const wire::AppliedNumber& applied) {
  auto binding = txn.binding(applied.binding());
  if (!binding && binding.error().code == Errc::kNotFound) return ok();
  if (!binding) return std::move(binding).error();
  wire::BindingState& state = *binding.value().mutable_state();
  if (applied.applied() < state.next_sequence()) return ok();
  state.set_next_sequence(applied.applied() + 1);
  txn.put_binding(binding.value());
  return ok();
}

// A worker that was killed between allocating a file and committing it leaves one that nobody will ever name.
Result<void> free_old_allocations(Transaction& txn, std::uint64_t worker) {
  GRADFS_TRY(auto rows, txn.scan_prefix(keys::allocations(0)));
  for (const auto& row : rows) {
    GRADFS_TRY(auto inode, txn.inode(keys::number_at(row.key, 9)));
    if (inode.attr().worker() != worker || txn.now_ns() - inode.attr().ctime_ns() < kAllocationMax_ns)
      continue;
    end_allocation(txn, inode);
    GRADFS_TRYV(settle(txn, inode));
  }
  return ok();
}

}  // namespace

Result<wire::RegisterWorkerResponse> register_worker(Transaction& txn,
                                                     const wire::RegisterWorkerRequest& request) {
  GRADFS_TRY(auto found, txn.find<stored::Worker>(keys::worker(request.worker())));
  stored::Worker worker = found.value_or(stored::Worker());
  const std::uint64_t id = found ? request.worker() : txn.new_id();
  *worker.mutable_address() = request.address();
  worker.mutable_address()->set_worker(id);
  worker.set_capacity_bytes(request.capacity_bytes());
  worker.set_incarnation(txn.new_id());
  txn.put_message(keys::worker(id), worker);
  for (const auto& applied : request.applied()) {
    GRADFS_TRYV(adopt(txn, applied));
  }
  GRADFS_TRYV(free_old_allocations(txn, id));
  wire::RegisterWorkerResponse response;
  response.set_worker(id);
  response.set_incarnation(worker.incarnation());
  GRADFS_TRY(auto rows, txn.scan_prefix("B"));
  for (const auto& row : rows) {
    stored::Binding binding;
    if (!binding.ParseFromString(row.value)) return Error(Errc::kCorrupt, "row of a binding");
    if (binding.worker() != id) continue;
    GRADFS_TRY(*response.add_bindings(), binding_state(txn, binding, true));
  }
  return response;
}

Result<wire::Empty> acknowledge_drops(Transaction& txn, const wire::WorkerPollRequest& request) {
  for (const auto inode : request.dropped())
    txn.erase(keys::command(keys::kDropImage, request.worker(), inode));
  for (const auto binding : request.dropped_bindings()) {
    txn.erase(keys::command(keys::kDropBinding, request.worker(), binding));
  }
  return wire::Empty();
}

}  // namespace gradfs::ops
