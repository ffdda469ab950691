// Bindings: a directory and the coprocessor that serves it.
#include <algorithm>

#include "fs/meta/limits.h"
#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

constexpr std::uint32_t kTextMode = 0644;

// Makes the directory `name` below the model directory, or takes the one that is there.
Result<std::uint64_t> take_subdirectory(Transaction& txn, const wire::Attr& model_dir, std::string_view name,
                                        wire::Role role, wire::Role child_role, std::uint64_t binding) {
  GRADFS_TRY(auto id, txn.entry(model_dir.inode(), name));
  if (!id) {
    auto made = new_inode(txn, wire::DIRECTORY, model_dir.mode(), model_dir.uid(), model_dir.gid());
    set_role(made, role, binding);
    GRADFS_TRYV(add_entry(txn, model_dir.inode(), std::string(name), made));
    txn.put_inode(made);
    return made.attr().inode();
  }
  GRADFS_TRY(auto found, txn.inode(*id));
  if (found.attr().type() != wire::DIRECTORY) return Error(Errc::kNotDirectory, std::string(name));
  set_role(found, role, binding);
  txn.put_inode(found);
  if (child_role == wire::ROLE_NONE) return *id;
  GRADFS_TRY(auto rows, txn.scan_prefix(keys::entries(*id)));
  for (const auto& row : rows) {
    GRADFS_TRY(auto child, txn.inode(keys::number_at(row.value, 0)));
    if (child.attr().type() != wire::REGULAR) continue;
    set_role(child, child_role, binding);
    txn.put_inode(child);
  }
  return *id;
}

Result<std::uint64_t> take_text_file(Transaction& txn, const wire::Attr& model_dir, std::string_view name,
                                     wire::Role role, std::uint64_t binding, const std::string& text) {
  GRADFS_TRY(auto id, txn.entry(model_dir.inode(), name));
  stored::Inode inode;
  if (id) {
    GRADFS_TRY(inode, txn.inode(*id));
    if (inode.attr().type() != wire::REGULAR)
      return Error(Errc::kInvalid, std::string(name) + " is no regular file");
  } else {
    inode = new_inode(txn, wire::REGULAR, kTextMode, model_dir.uid(), model_dir.gid());
    GRADFS_TRYV(add_entry(txn, model_dir.inode(), std::string(name), inode));
  }
  make_inline(txn, inode, text);
  set_role(inode, role, binding);
  txn.put_inode(inode);
  return inode.attr().inode();
}

Result<void> take_optimizer(Transaction& txn, const wire::CommitBindRequest& request, std::uint64_t binding) {
  if (request.optimizer() == 0) return ok();
  GRADFS_TRY(auto old, txn.entry(request.directory(), kOptimizerName));
  if (old) {
    GRADFS_TRY(auto inode, txn.inode(*old));
    if (inode.attr().type() == wire::DIRECTORY) return Error(Errc::kIsDirectory, std::string(kOptimizerName));
    GRADFS_TRYV(remove_entry(txn, request.directory(), std::string(kOptimizerName), false));
    GRADFS_TRYV(drop_link(txn, std::move(inode)));
  }
  GRADFS_TRY(auto inode, txn.inode(request.optimizer()));
  end_allocation(txn, inode);
  GRADFS_TRYV(add_entry(txn, request.directory(), std::string(kOptimizerName), inode));
  set_role(inode, wire::OPTIMIZER, binding);
  inode.mutable_attr()->set_size(request.optimizer_size());
  inode.set_pins(inode.pins() + 1);
  txn.put_inode(inode);
  return ok();
}

Result<void> clear_children(Transaction& txn, std::uint64_t directory_id) {
  auto directory = txn.inode(directory_id);
  if (!directory && directory.error().code == Errc::kNotFound) return ok();
  if (!directory) return std::move(directory).error();
  clear_role(directory.value());
  txn.put_inode(directory.value());
  GRADFS_TRY(auto rows, txn.scan_prefix(keys::entries(directory_id)));
  for (const auto& row : rows) {
    GRADFS_TRY(auto child, txn.inode(keys::number_at(row.value, 0)));
    if (child.attr().role() == wire::ROLE_NONE) continue;
    clear_role(child);
    txn.put_inode(child);
  }
  return ok();
}

Result<void> release_pushes(Transaction& txn, std::uint64_t binding) {
  GRADFS_TRY(auto rows, txn.scan_prefix(keys::pushes(binding)));
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
  return ok();
}

}  // namespace

Result<wire::CommitBindResponse> commit_bind(Transaction& txn, const wire::CommitBindRequest& request) {
  GRADFS_TRY(auto directory, txn.directory(request.directory()));
  if (directory.attr().role() == wire::MODEL_DIR) return Error(Errc::kExists, "the directory is bound");
  if (directory.attr().role() != wire::ROLE_NONE)
    return Error(Errc::kInvalid, "the directory belongs to a model");
  GRADFS_TRY(auto model_id, txn.entry(request.directory(), kModelName));
  if (!model_id) return Error(Errc::kNotFound, std::string(kModelName));
  GRADFS_TRY(auto model, txn.inode(*model_id));
  if (model.attr().type() != wire::REGULAR) return Error(Errc::kInvalid, std::string(kModelName));
  if (request.config_text().size() > kInlineMax_bytes) return Error(Errc::kTooBig, std::string(kConfigName));

  const std::uint64_t id = txn.new_id();
  stored::Binding binding;
  binding.set_worker(request.worker());
  wire::BindingState& state = *binding.mutable_state();
  state.set_binding(id);
  state.set_directory(request.directory());
  state.set_coprocessor(request.coprocessor());
  state.set_model(*model_id);
  state.set_optimizer(request.optimizer());
  state.set_next_sequence(1);
  state.set_state(request.state());
  set_role(model, wire::MODEL, id);
  model.set_pins(model.pins() + 1);
  txn.put_inode(model);
  const wire::Attr attr = directory.attr();
  GRADFS_TRYV(take_optimizer(txn, request, id));
  GRADFS_TRY(auto config, take_text_file(txn, attr, kConfigName, wire::CONFIG, id, request.config_text()));
  state.set_config(config);
  GRADFS_TRY(auto status, take_text_file(txn, attr, kStatusName, wire::STATUS, id, ""));
  binding.set_status(status);
  GRADFS_TRY(auto gradients,
             take_subdirectory(txn, attr, kGradientsName, wire::GRADIENTS_DIR, wire::GRADIENT, id));
  state.set_gradients_dir(gradients);
  GRADFS_TRY(auto slots, take_subdirectory(txn, attr, kSlotsName, wire::SLOTS_DIR, wire::SLOT, id));
  binding.set_slots_dir(slots);
  GRADFS_TRY(auto rejected,
             take_subdirectory(txn, attr, kRejectedName, wire::REJECTED_DIR, wire::ROLE_NONE, id));
  state.set_rejected_dir(rejected);
  GRADFS_TRY(directory, txn.directory(request.directory()));  // its links and times have moved
  set_role(directory, wire::MODEL_DIR, id);
  txn.put_inode(directory);
  txn.put_binding(binding);
  txn.header().set_bindings(txn.header().bindings() + 1);
  wire::CommitBindResponse response;
  GRADFS_TRY(*response.mutable_binding(), binding_state(txn, binding, true));
  return response;
}

Result<void> remove_binding(Transaction& txn, std::uint64_t id) {
  GRADFS_TRY(auto binding, txn.binding(id));
  const wire::BindingState& state = binding.state();
  GRADFS_TRYV(release_pushes(txn, id));
  for (const std::uint64_t directory : {state.gradients_dir(), binding.slots_dir(), state.rejected_dir()}) {
    if (directory != 0) {
      GRADFS_TRYV(clear_children(txn, directory));
    }
  }
  GRADFS_TRYV(clear_children(txn, state.directory()));
  GRADFS_TRYV(drop_pin(txn, state.model()));
  if (state.optimizer() != 0) {
    GRADFS_TRYV(drop_pin(txn, state.optimizer()));
  }
  txn.erase(keys::binding(id));
  txn.erase_prefix(keys::join('V', id));
  txn.erase_prefix(keys::join('T', id));
  txn.erase_prefix(keys::join('U', id));
  txn.put_number(keys::command(keys::kDropBinding, binding.worker(), id), txn.entry().index());
  txn.header().set_bindings(txn.header().bindings() - 1);
  return ok();
}

Result<std::string> path_of(Transaction& txn, std::uint64_t directory) {
  std::string path;
  for (std::size_t depth = 0; directory != kRootInode.value; ++depth) {
    if (depth >= kPathDepthMax) return Error(Errc::kLoop);
    GRADFS_TRY(auto inode, txn.inode(directory));
    path.insert(0, "/" + inode.name());
    directory = inode.parent();
  }
  return path.empty() ? "/" : path;
}

Result<wire::BindingState> binding_state(Transaction& txn, const stored::Binding& binding, bool pending) {
  wire::BindingState state = binding.state();
  GRADFS_TRY(*state.mutable_path(), path_of(txn, state.directory()));
  if (!pending) return state;
  GRADFS_TRY(auto rows, txn.scan(keys::push(state.binding(), state.retired() + 1),
                                 keys::after_prefix(keys::pushes(state.binding()))));
  for (const auto& row : rows) {
    stored::Push push;
    if (!push.ParseFromString(row.value)) return Error(Errc::kCorrupt, "row of a push");
    *state.add_pending() = push.push();
  }
  GRADFS_TRY(auto workers, txn.scan_prefix(keys::join('V', state.binding())));
  for (const auto& row : workers) {
    stored::StepWorker worker;
    if (!worker.ParseFromString(row.value)) return Error(Errc::kCorrupt, "row of a worker's steps");
    wire::WorkerStep& step = *state.add_last_steps();
    step.set_run(worker.run());
    step.set_worker(worker.worker());
    step.set_last_step(worker.last_step());
  }
  return state;
}

}  // namespace gradfs::ops
