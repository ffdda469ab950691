// Which role a file has by its name in a model directory.
#include <array>

#include "fs/meta/ops.h"

namespace gradfs::ops {
namespace {

struct Subdirectory {
  std::string_view name;
  wire::Role role;
};
constexpr std::array<Subdirectory, 3> kSubdirectories = {{{kGradientsName, wire::GRADIENTS_DIR},
                                                          {kSlotsName, wire::SLOTS_DIR},
                                                          {kRejectedName, wire::REJECTED_DIR}}};

void record(stored::Binding& binding, wire::Role role, std::uint64_t inode) {
  switch (role) {
    case wire::GRADIENTS_DIR:
      return binding.mutable_state()->set_gradients_dir(inode);
    case wire::REJECTED_DIR:
      return binding.mutable_state()->set_rejected_dir(inode);
    case wire::SLOTS_DIR:
      return binding.set_slots_dir(inode);
    case wire::CONFIG:
      return binding.mutable_state()->set_config(inode);
    case wire::STATUS:
      return binding.set_status(inode);
    default:
      return;
  }
}

// A new file or directory in the model directory takes the place of one that was removed.
Result<void> assign_in_model(Transaction& txn, std::uint64_t binding_id, std::string_view name,
                             stored::Inode& inode) {
  wire::Role role = wire::ROLE_NONE;
  if (inode.attr().type() == wire::DIRECTORY) {
    for (const auto& known : kSubdirectories) {
      if (name == known.name) role = known.role;
    }
  } else if (inode.attr().type() == wire::REGULAR) {
    if (name == kConfigName) role = wire::CONFIG;
    if (name == kStatusName) role = wire::STATUS;
  }
  if (role == wire::ROLE_NONE) return ok();
  GRADFS_TRY(auto binding, txn.binding(binding_id));
  record(binding, role, inode.attr().inode());
  txn.put_binding(binding);
  set_role(inode, role, binding_id);
  if (inode.attr().type() == wire::REGULAR) make_inline(txn, inode, "");
  return ok();
}

}  // namespace

void clear_role(stored::Inode& inode) { set_role(inode, wire::ROLE_NONE, 0); }

void set_role(stored::Inode& inode, wire::Role role, std::uint64_t binding) {
  inode.mutable_attr()->set_role(role);
  inode.mutable_attr()->set_binding(binding);
}

void make_inline(Transaction& txn, stored::Inode& inode, const std::string& text) {
  drop_image(txn, inode.attr());
  wire::Attr& attr = *inode.mutable_attr();
  attr.set_worker(0);
  attr.set_is_inline(true);
  attr.set_size(text.size());
  attr.set_mtime_ns(txn.now_ns());
  attr.set_ctime_ns(txn.now_ns());
  inode.set_inline_data(text);
}

Result<void> assign_role(Transaction& txn, const stored::Inode& parent, std::string_view name,
                         stored::Inode& inode) {
  const std::uint64_t binding = parent.attr().binding();
  switch (parent.attr().role()) {
    case wire::GRADIENTS_DIR:
      if (inode.attr().type() == wire::REGULAR) set_role(inode, wire::GRADIENT, binding);
      return ok();
    case wire::SLOTS_DIR:
      if (inode.attr().type() == wire::REGULAR) set_role(inode, wire::SLOT, binding);
      return ok();
    case wire::MODEL_DIR:
      return assign_in_model(txn, binding, name, inode);
    default:
      return ok();
  }
}

}  // namespace gradfs::ops
