// The sequence of a binding: commit, outcomes, the steps of workers, retirement.
#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

constexpr std::uint32_t kConfigMode = 0644;

// Forgets the worker name that has been silent for the longest time.
Result<void> evict_step_worker(Transaction& txn, std::uint64_t binding) {
  GRADFS_TRY(auto rows, txn.scan_prefix(keys::join('V', binding)));
  std::optional<stored::StepWorker> oldest;
  for (const auto& row : rows) {
    stored::StepWorker worker;
    if (!worker.ParseFromString(row.value)) return Error(Errc::kCorrupt, "row of a worker's steps");
    if (!oldest || worker.last_sequence() < oldest->last_sequence()) oldest = std::move(worker);
  }
  if (!oldest) return ok();
  txn.erase(keys::step_worker(binding, oldest->run(), oldest->worker()));
  txn.erase_prefix(keys::steps(binding, oldest->run(), oldest->worker()));
  txn.erase_prefix(keys::step_slots(binding, oldest->run(), oldest->worker()));
  return ok();
}

// Consumes the step. Returns the number that has consumed it before, or 0.
Result<std::uint64_t> consume_step(Transaction& txn, stored::Binding& binding, const wire::StepKey& key,
                                   std::uint64_t sequence) {
  if (key.worker().empty()) return std::uint64_t{0};
  if (key.run().size() > kStepNameMax_bytes || key.worker().size() > kStepNameMax_bytes) {
    return Error(Errc::kInvalid, "run and worker are at most 255 bytes");
  }
  const std::uint64_t id = binding.state().binding();
  GRADFS_TRY(auto before, txn.number(keys::step(id, key.run(), key.worker(), key.step())));
  if (before != 0) return before;
  const std::string worker_key = keys::step_worker(id, key.run(), key.worker());
  GRADFS_TRY(auto found, txn.find<stored::StepWorker>(worker_key));
  stored::StepWorker worker;
  if (found) {
    worker = std::move(*found);
  } else if (binding.step_workers() >= kStepWorkersMax) {
    GRADFS_TRYV(evict_step_worker(txn, id));
  } else {
    binding.set_step_workers(binding.step_workers() + 1);
  }
  const std::string slot = keys::step_slot(id, key.run(), key.worker(), worker.count());
  if (worker.count() >= keys::kStepsKept) {
    GRADFS_TRY(auto forgotten, txn.number(slot));
    txn.erase(keys::step(id, key.run(), key.worker(), forgotten));
  }
  txn.put_number(slot, key.step());
  txn.put_number(keys::step(id, key.run(), key.worker(), key.step()), sequence);
  worker.set_run(key.run());
  worker.set_worker(key.worker());
  worker.set_count(worker.count() + 1);
  worker.set_last_step(std::max(worker.last_step(), key.step()));
  worker.set_last_sequence(sequence);
  txn.put_message(worker_key, worker);
  return std::uint64_t{0};
}

// Takes the pushed file from its names and keeps it until its number is retired.
Result<void> take_file(Transaction& txn, const wire::CommitPushRequest& request) {
  const wire::CommittedPush& push = request.push();
  if (push.inode() == 0) return consume_entries(txn, request.consume(), nullptr);
  auto found = txn.inode(push.inode());
  if (!found && found.error().code == Errc::kNotFound)
    return Error(Errc::kNotFound, "the pushed file is gone");
  if (!found) return std::move(found).error();
  stored::Inode inode = std::move(found).value();
  const bool landed = inode.attr().role() == wire::GRADIENT && inode.attr().binding() == request.binding();
  if (push.kind() == wire::GRADIENT_CLOSE && !landed)
    return Error(Errc::kNotFound, "the pushed file was moved away");
  GRADFS_TRYV(consume_entries(txn, request.consume(), &inode));
  end_allocation(txn, inode);
  inode.set_pins(inode.pins() + 1);
  txn.put_inode(inode);
  if (inode.attr().link_count() == 0) txn.erase(keys::lease(push.identity().session(), push.inode()));
  return ok();
}

Result<void> edit_config(Transaction& txn, stored::Binding& binding, const std::string& text) {
  if (text.size() > kInlineMax_bytes) return Error(Errc::kTooBig, std::string(kConfigName));
  auto config = txn.inode(binding.state().config());
  if (!config && config.error().code != Errc::kNotFound) return std::move(config).error();
  stored::Inode inode;
  if (config) {
    inode = std::move(config).value();
  } else {  // it was removed: the edit makes it anew
    GRADFS_TRY(auto directory, txn.directory(binding.state().directory()));
    inode = new_inode(txn, wire::REGULAR, kConfigMode, directory.attr().uid(), directory.attr().gid());
    GRADFS_TRYV(add_entry(txn, binding.state().directory(), std::string(kConfigName), inode));
    set_role(inode, wire::CONFIG, binding.state().binding());
    binding.mutable_state()->set_config(inode.attr().inode());
  }
  make_inline(txn, inode, text);
  txn.put_inode(inode);
  return ok();
}

// The binding's pin on the old optimizer becomes the push's. Returns the old one.
Result<std::uint64_t> swap_optimizer(Transaction& txn, stored::Binding& binding, std::uint64_t id,
                                     std::uint64_t size) {
  const std::uint64_t directory = binding.state().directory();
  const std::uint64_t old = binding.state().optimizer();
  const std::string name(kOptimizerName);
  GRADFS_TRY(auto named, txn.entry(directory, name));
  if (named) {
    GRADFS_TRY(auto inode, txn.inode(*named));
    if (inode.attr().type() == wire::DIRECTORY) return Error(Errc::kIsDirectory, name);
    GRADFS_TRYV(remove_entry(txn, directory, name, false));
    GRADFS_TRYV(drop_link(txn, std::move(inode)));
  }
  GRADFS_TRY(auto inode, txn.inode(id));
  end_allocation(txn, inode);
  GRADFS_TRYV(add_entry(txn, directory, name, inode));
  set_role(inode, wire::OPTIMIZER, binding.state().binding());
  inode.mutable_attr()->set_size(size);
  inode.set_pins(inode.pins() + 1);
  txn.put_inode(inode);
  binding.mutable_state()->set_optimizer(id);
  return old;
}

}  // namespace

Result<void> consume_entries(Transaction& txn,
                             const google::protobuf::RepeatedPtrField<wire::EntryRef>& entries,
                             stored::Inode* keep) {
  for (const auto& ref : entries) {
    GRADFS_TRY(auto named, txn.entry(ref.parent(), ref.name()));
    if (!named || *named != ref.inode()) continue;
    const bool is_kept = keep != nullptr && keep->attr().inode() == ref.inode();
    stored::Inode inode;
    if (!is_kept) {
      GRADFS_TRY(inode, txn.inode(ref.inode()));
      if (inode.attr().type() == wire::DIRECTORY) return Error(Errc::kIsDirectory, "a pushed name");
    }
    GRADFS_TRYV(remove_entry(txn, ref.parent(), ref.name(), false));
    if (!is_kept) {
      GRADFS_TRYV(drop_link(txn, std::move(inode)));
      continue;
    }
    wire::Attr& attr = *keep->mutable_attr();
    attr.set_link_count(attr.link_count() - 1);
    attr.set_ctime_ns(txn.now_ns());
    if (attr.link_count() == 0) clear_role(*keep);
  }
  return ok();
}

Result<wire::CommitPushResponse> commit_push(Transaction& txn, const wire::CommitPushRequest& request) {
  wire::CommitPushResponse response;
  const wire::Identity& identity = request.push().identity();
  GRADFS_TRY(auto known, find_outcome(txn, identity));
  if (known && known->binding() == request.binding()) {
    if (known->error() != 0)
      return Error(from_wire(static_cast<std::uint16_t>(known->error())), known->reason());
    response.set_sequence(known->sequence());
    response.set_repeated_identity(true);
    return response;
  }
  GRADFS_TRY(auto binding, txn.binding(request.binding()));
  if (!check_session(txn, identity.session()))
    return Error(Errc::kCancelled, "the mount's session has ended");
  const std::uint64_t sequence = binding.state().next_sequence();
  GRADFS_TRY(auto before, consume_step(txn, binding, request.push().key(), sequence));
  if (before != 0) {
    response.set_repeated_step_sequence(before);
    return response;
  }
  GRADFS_TRYV(take_file(txn, request));
  stored::Push row;
  *row.mutable_push() = request.push();
  row.mutable_push()->set_sequence(sequence);
  row.mutable_push()->set_time_ns(txn.now_ns());
  if (request.push().kind() == wire::CONFIG_EDIT) {
    GRADFS_TRYV(edit_config(txn, binding, request.config_text()));
    if (request.new_optimizer() != 0) {
      GRADFS_TRY(auto old,
                 swap_optimizer(txn, binding, request.new_optimizer(), request.new_optimizer_size()));
      row.set_old_optimizer(old);
    }
  }
  txn.put_message(keys::push(request.binding(), sequence), row);
  binding.mutable_state()->set_next_sequence(sequence + 1);
  txn.put_binding(binding);
  stored::Outcome outcome;
  outcome.set_binding(request.binding());
  outcome.set_sequence(sequence);
  GRADFS_TRYV(put_outcome(txn, identity, outcome));
  response.set_sequence(sequence);
  return response;
}

Result<wire::Empty> retire(Transaction& txn, const wire::RetireRequest& request) {
  GRADFS_TRY(auto binding, txn.binding(request.binding()));
  wire::BindingState& state = *binding.mutable_state();
  if (request.up_to() >= state.next_sequence()) return Error(Errc::kInvalid, "a number that was never given");
  if (request.up_to() < state.retired()) return wire::Empty();
  GRADFS_TRY(auto rows, txn.scan(keys::push(request.binding(), state.retired() + 1),
                                 keys::push(request.binding(), request.up_to() + 1)));
  for (const auto& row : rows) {
    stored::Push push;
    if (!push.ParseFromString(row.value)) return Error(Errc::kCorrupt, "row of a push");
    if (push.push().inode() != 0) {
      GRADFS_TRYV(drop_pin(txn, push.push().inode()));
    }
    if (push.old_optimizer() != 0) {
      GRADFS_TRYV(drop_pin(txn, push.old_optimizer()));
    }
    txn.erase(row.key);
  }
  state.set_retired(request.up_to());
  state.set_state(request.state());
  txn.put_binding(binding);
  return wire::Empty();
}

Result<std::optional<stored::Outcome>> find_outcome(Transaction& txn, const wire::Identity& identity) {
  return txn.find<stored::Outcome>(keys::outcome(identity.session(), identity.inode(), identity.ordinal()));
}

Result<void> put_outcome(Transaction& txn, const wire::Identity& identity, const stored::Outcome& outcome) {
  const std::uint64_t session = identity.session();
  if (!check_session(txn, session)) return ok();  // nobody is left to ask
  GRADFS_TRY(auto count, txn.number(keys::outcome_count(session)));
  const std::string slot = keys::outcome_slot(session, count);
  GRADFS_TRY(auto old, txn.get(slot));
  if (old) txn.erase(keys::outcome(session, keys::number_at(*old, 0), keys::number_at(*old, 8)));
  txn.put(slot, keys::number(identity.inode()) + keys::number(identity.ordinal()));
  txn.put_message(keys::outcome(session, identity.inode(), identity.ordinal()), outcome);
  txn.put_number(keys::outcome_count(session), count + 1);
  return ok();
}

Result<wire::OutcomeResponse> push_outcome(Transaction& txn, const wire::OutcomeRequest& request) {
  wire::OutcomeResponse response;
  GRADFS_TRY(auto outcome, find_outcome(txn, request.identity()));
  if (!outcome || outcome->binding() != request.binding()) return response;
  response.set_known(true);
  response.set_sequence(outcome->sequence());
  response.set_error(outcome->error());
  response.set_reason(outcome->reason());
  return response;
}

}  // namespace gradfs::ops
