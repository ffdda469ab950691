#include "client/mount/mount.h"

namespace gradfs {

Task<> Mount::lookup(Request request, InodeId parent, std::string name) {
  wire::LookupRequest ask;
  ask.set_parent(parent.value);
  ask.set_name(name);
  auto found = co_await ask_master<rpc::Lookup>(std::move(ask));
  if (!found) co_return reply_error(request, found.error());
  wire::Attr attr = found.value().attr();
  if (attr.role() == wire::STATUS) {
    auto text = co_await status_text(BindingId{attr.binding()});
    if (text) attr.set_size(text.value().size());
  }
  count_lookup(attr, parent, name);
  const fuse_entry_param entry = entry_of(attr, parent);
  if (!request.entry(entry)) forget(InodeId{attr.inode()}, 1);
}

Task<> Mount::make(Request request, InodeId parent, std::string name, wire::FileType type, mode_t mode,
                   std::string target) {
  wire::CreateRequest ask;
  ask.set_parent(parent.value);
  ask.set_name(name);
  ask.set_type(type);
  ask.set_mode(mode & 07777);
  ask.set_uid(request.uid());
  ask.set_gid(request.gid());
  ask.set_symlink_target(target);
  ask.set_session(session_.value);
  ask.set_exclusive(true);
  auto made = co_await ask_master<rpc::Create>(std::move(ask));
  if (!made) co_return reply_error(request, made.error());
  count_lookup(made.value().attr(), parent, name);
  const fuse_entry_param entry = entry_of(made.value().attr(), parent);
  if (!request.entry(entry)) forget(InodeId{made.value().attr().inode()}, 1);
}

Task<> Mount::remove(Request request, InodeId parent, std::string name, bool directory) {
  wire::RemoveRequest ask;
  ask.set_parent(parent.value);
  ask.set_name(name);
  if (directory) {
    auto removed = co_await ask_master<rpc::Rmdir>(std::move(ask));
    if (!removed) co_return reply_error(request, removed.error());
  } else {
    auto removed = co_await ask_master<rpc::Unlink>(std::move(ask));
    if (!removed) co_return reply_error(request, removed.error());
    const wire::Attr& attr = removed.value().attr();
    if (const auto found = nodes_.find(InodeId{attr.inode()}); found != nodes_.end()) {
      found->second.attr = attr;
      found->second.unlinked = attr.link_count() == 0;
    }
  }
  request.error(0);
}

// A rename is a push when it brings a finished file into gradients/, or over a file of a model directory.
Task<> Mount::rename(Request request, InodeId parent, std::string name, InodeId new_parent,
                     std::string new_name, unsigned flags) {
  constexpr unsigned kNoReplace = 1;
  if ((flags & ~kNoReplace) != 0) co_return void(request.error(EINVAL));
  wire::LookupRequest ask;
  ask.set_parent(parent.value);
  ask.set_name(name);
  auto source = co_await ask_master<rpc::Lookup>(std::move(ask));
  if (!source) co_return reply_error(request, source.error());
  const wire::Attr attr = source.value().attr();
  const InodeId inode{attr.inode()};
  const wire::Role directory = role_of(new_parent);
  wire::PushKind kind = wire::PUSH_NONE;
  BindingId binding = binding_of(new_parent);
  const bool being_written = nodes_.contains(inode) && node(inode).write_opens > 0;
  if (directory == wire::GRADIENTS_DIR && !new_name.starts_with('.') && attr.type() == wire::REGULAR &&
      !being_written) {
    kind = wire::GRADIENT_RENAME;
  }
  wire::LookupRequest ask_target;
  ask_target.set_parent(new_parent.value);
  ask_target.set_name(new_name);
  if (directory == wire::MODEL_DIR || kind != wire::PUSH_NONE) {
    auto target = co_await ask_master<rpc::Lookup>(std::move(ask_target));
    if (target && (flags & kNoReplace) != 0) co_return void(request.error(EEXIST));
    if (target && InodeId{target.value().attr().inode()} == inode) co_return void(request.error(0));
    const wire::Role over = target ? target.value().attr().role() : wire::ROLE_NONE;
    if (over == wire::MODEL) kind = wire::ASSIGN_MODEL;
    if (over == wire::OPTIMIZER) kind = wire::ASSIGN_OPTIMIZER;
    const bool made_anew = !target && directory == wire::MODEL_DIR && new_name == "descent.toml";
    if (over == wire::CONFIG || made_anew) kind = wire::CONFIG_EDIT;
    if (over == wire::STATUS) co_return void(request.error(EACCES));
    if (kind == wire::GRADIENT_RENAME && target) {  // a file that has not landed yet goes
      wire::RemoveRequest remove;
      remove.set_parent(new_parent.value);
      remove.set_name(new_name);
      auto removed = co_await ask_master<rpc::Unlink>(std::move(remove));
      if (!removed) co_return reply_error(request, removed.error());
    }
  }
  if (kind == wire::PUSH_NONE) {
    wire::RenameRequest rename;
    rename.set_parent(parent.value);
    rename.set_name(name);
    rename.set_new_parent(new_parent.value);
    rename.set_new_name(new_name);
    rename.set_no_replace((flags & kNoReplace) != 0);
    auto renamed = co_await ask_master<rpc::Rename>(std::move(rename));
    if (!renamed) co_return reply_error(request, renamed.error());
    if (const auto found = nodes_.find(inode); found != nodes_.end()) {
      remember(renamed.value().attr());
      found->second.parent = new_parent;
      found->second.name = new_name;
    }
    co_return void(request.error(0));
  }
  if (being_written) co_return void(request.error(EBUSY));
  remember(attr);
  wire::PushRequest push_it = push_request(inode, kind);
  push_it.set_binding(binding.value);
  push_it.set_name(new_name);
  wire::EntryRef* consume = push_it.add_consume();
  consume->set_parent(parent.value);
  consume->set_name(name);
  consume->set_inode(inode.value);
  request.end_at_any_signal(std::nullopt);
  auto pushed = co_await push(std::move(push_it));
  if (pushed) {
    if (const auto found = nodes_.find(inode); found != nodes_.end()) found->second.unlinked = true;
  }
  request.error(pushed ? 0 : to_errno(pushed.error().code));
  // The kernel has moved the source's dentry to the new name; it names nothing any more.
  if (pushed) co_await invalidate_entry(new_parent, new_name);
  forget_if_unused(inode);
}

Task<> Mount::invalidate_entry(InodeId parent, std::string name) {
  co_await helper_.run([&] {
    fuse_lowlevel_notify_inval_entry(device_.session(), to_node(parent), name.c_str(), name.size());
  });
}

}  // namespace gradfs
