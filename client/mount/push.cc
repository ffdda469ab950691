// From a file that has landed to the worker's answer.
#include "client/mount/mount.h"
#include "fs/base/log.h"

namespace gradfs {
namespace {

constexpr std::int64_t kDetachPatience_ns = 250 * kMillisecond_ns;
constexpr std::int64_t kWatchCaller_ns = 20 * kMillisecond_ns;

}  // namespace

wire::PushRequest Mount::push_request(InodeId inode, wire::PushKind kind) {
  wire::PushRequest request;
  request.set_kind(kind);
  request.set_inode(inode.value);
  request.set_binding(binding_of(inode).value);
  request.mutable_identity()->set_session(session_.value);
  request.mutable_identity()->set_inode(inode.value);
  request.mutable_identity()->set_ordinal(next_ordinal_++);
  return request;
}

Task<Result<wire::PushResponse>> Mount::push(wire::PushRequest request) {
  const BindingId binding{request.binding()};
  GRADFS_CO_TRY(RpcClient * client, co_await worker_of_binding(binding));
  const CallOptions options{.timeout_ns = options_.timeout_ns};
  auto response = co_await client->call<rpc::Push>(std::move(request), options);
  if (response) {
    GRADFS_CO_TRYV(co_await make_visible(binding));
  } else {
    spdlog::info("push refused: {}", response.error().message());
  }
  co_return response;
}

// With passthrough the model that a process maps is the model. Without it the kernel caches pages: drop them
// before the push is acknowledged.
Task<Result<void>> Mount::make_visible(BindingId binding) {
  if (passthrough_) co_return ok();
  const auto model = models_.find(binding);
  if (model == models_.end()) co_return ok();
  const fuse_ino_t node = to_node(model->second);
  co_await helper_.run([&] { fuse_lowlevel_notify_inval_inode(device_.session(), node, 0, 0); });
  co_return ok();
}

Task<Result<wire::PushResponse>> Mount::land(std::shared_ptr<OpenFile> file) {
  file->landed = true;
  const Node& known = node(file->inode);
  const wire::Role role = known.attr.role();
  wire::PushRequest request;
  if (file->staging_image.valid()) {
    request = push_request(file->staging, role == wire::MODEL ? wire::ASSIGN_MODEL : wire::ASSIGN_OPTIMIZER);
    request.set_binding(known.attr.binding());
    request.set_name(role == wire::MODEL ? "model.safetensors" : "optimizer.safetensors");
  } else if (role == wire::CONFIG) {
    request = push_request(file->inode, wire::CONFIG_EDIT);
    request.set_inode(0);
    request.set_name("descent.toml");
    request.set_config_text(file->text);
    file->dirty = false;
    file->landed = false;  // the same handle may be written again
  } else {
    request = push_request(file->inode, wire::GRADIENT_CLOSE);
    request.set_name(known.name);
    wire::EntryRef* consume = request.add_consume();
    consume->set_parent(known.parent.value);
    consume->set_name(known.name);
    consume->set_inode(file->inode.value);
  }
  if (role != wire::GRADIENT) co_return co_await push(std::move(request));
  ++node(file->inode).frozen;  // nobody else may write into what is landing
  auto response = co_await push(std::move(request));
  Node& landed = node(file->inode);
  --landed.frozen;
  if (response) landed.unlinked = true;
  node_changed_.notify_all();
  forget_if_unused(file->inode);
  co_return response;
}

Task<> Mount::land_and_reply(Request request, std::shared_ptr<OpenFile> file) {
  request.end_at_any_signal(std::nullopt);
  auto landed = co_await land(file);
  request.error(landed ? 0 : to_errno(landed.error().code));
}

Task<> Mount::sync_slot(Request request, InodeId inode) {
  wire::PushRequest push_it = push_request(inode, wire::SLOT_SYNC);
  push_it.set_name(node(inode).name);
  request.end_at_any_signal(push_it.identity());
  ++node(inode)
        .frozen;  // until its bytes are taken: an interrupted writer must not let others write over them
  auto pushed = co_await push(std::move(push_it));
  --node(inode).frozen;
  node_changed_.notify_all();
  request.error(pushed ? 0 : to_errno(pushed.error().code));
  forget_if_unused(inode);
}

// A file that must not land: kept in rejected/ with the reason.
Task<> Mount::reject(std::shared_ptr<OpenFile> file, std::string reason) {
  file->landed = true;
  if (role_of(file->inode) != wire::GRADIENT) co_return;  // a config or a staged model: dropped
  const Node& known = node(file->inode);
  wire::RejectPushRequest request;
  request.set_binding(known.attr.binding());
  request.mutable_identity()->set_session(session_.value);
  request.mutable_identity()->set_inode(file->inode.value);
  request.mutable_identity()->set_ordinal(next_ordinal_++);
  request.set_inode(file->inode.value);
  request.set_name(known.name);
  request.set_reason(reason);
  request.set_error(static_cast<std::uint32_t>(Errc::kInvalid));
  request.set_keep(100);
  struct stat info{};
  if (::fstat(known.image.get(), &info) == 0) request.set_size(static_cast<std::uint64_t>(info.st_size));
  wire::EntryRef* consume = request.add_consume();
  consume->set_parent(known.parent.value);
  consume->set_name(known.name);
  consume->set_inode(file->inode.value);
  auto rejected = co_await ask_master<rpc::RejectPush>(std::move(request));
  if (!rejected) spdlog::warn("reject: {}", rejected.error().message());
}

Request Mount::begin(fuse_req_t raw) {
  return Request(raw, [this](const Request& request) {
    executor_.post([this, request] { scope_.spawn(honour_interrupt(request)); });
  });
}

// Whatever was begun goes on; only the wait ends. A slot's writer gets its bytes back, so they are frozen
// first.
Task<> Mount::honour_interrupt(Request request) {
  while (!request.answered() && !request.ends_at_any_signal() && !request.caller_is_dying()) {
    co_await executor_.clock().sleep_ns(kWatchCaller_ns);
  }
  if (request.answered()) co_return;
  if (request.slot() && !workers_.empty()) {
    wire::DetachRequest detach;
    *detach.mutable_identity() = *request.slot();
    const CallOptions options{.timeout_ns = kDetachPatience_ns, .retry = false};
    auto detached = co_await workers_.begin()->second->call<rpc::Detach>(std::move(detach), options);
    if (!detached) spdlog::info("interrupted push, not frozen yet: {}", detached.error().message());
  }
  request.error(EINTR);
}

}  // namespace gradfs
