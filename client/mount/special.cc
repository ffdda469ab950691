// Files of a model directory that are not plain images: descent.toml and status.json are texts that are read
// and written through the daemon; writing over the model is an assignment, staged in an image of its own.
#include <fcntl.h>

#include "client/mount/mount.h"

namespace gradfs {

bool Mount::is_text(wire::Role role, const wire::Attr& attr) {
  return role == wire::CONFIG || role == wire::STATUS || attr.is_inline();
}

Task<Result<std::string>> Mount::status_text(BindingId binding) {
  GRADFS_CO_TRY(RpcClient * client, co_await worker_of_binding(binding));
  wire::ModelStatusRequest ask;
  ask.set_binding(binding.value);
  const CallOptions options{.timeout_ns = options_.timeout_ns};
  GRADFS_CO_TRY(auto status, co_await client->call<rpc::ModelStatus>(std::move(ask), options));
  co_return std::move(*status.mutable_json());
}

// Fills what the handle needs before the open is answered.
Task<Result<void>> Mount::open_special(std::shared_ptr<OpenFile> file) {
  const wire::Attr attr = node(file->inode).attr;
  if (attr.role() == wire::MODEL || attr.role() == wire::OPTIMIZER) {
    if (!file->write) co_return ok();
    // In place would be under the eyes of whoever maps it: write all of it, or push gradients.
    if ((file->flags & O_ACCMODE) == O_RDWR) co_return Error(Errc::kAccess, "open it for writing only");
    co_return co_await stage_assignment(file);
  }
  if (attr.role() == wire::STATUS) {
    if (file->write) co_return Error(Errc::kAccess, "status.json is made by gradfs");
    GRADFS_CO_TRY(file->text, co_await status_text(BindingId{attr.binding()}));
    co_return ok();
  }
  if (attr.is_inline()) {
    if (file->write && attr.role() != wire::CONFIG) co_return Error(Errc::kAccess, "kept as it was refused");
    wire::OpenRequest ask;
    ask.set_inode(file->inode.value);
    ask.set_session(session_.value);
    GRADFS_CO_TRY(auto opened, co_await ask_master<rpc::Open>(std::move(ask)));
    file->text = opened.inline_data();
    if ((file->flags & O_TRUNC) != 0) {
      file->text.clear();
      file->dirty = true;
    }
  }
  co_return ok();
}

Task<Result<void>> Mount::stage_assignment(std::shared_ptr<OpenFile> file) {
  wire::AllocateInodeRequest ask;
  ask.set_session(session_.value);
  ask.set_mode(0600);
  GRADFS_CO_TRY(auto allocated, co_await ask_master<rpc::AllocateInode>(std::move(ask)));
  GRADFS_CO_TRY(RpcClient * client, co_await worker_of_binding(binding_of(file->inode)));
  wire::OpenImageRequest open;
  open.set_inode(allocated.attr().inode());
  open.set_create(true);
  std::vector<UniqueFd> descriptors;
  const CallOptions options{.timeout_ns = options_.timeout_ns, .descriptors = &descriptors};
  GRADFS_CO_TRYV(co_await client->call<rpc::OpenImage>(std::move(open), options));
  if (descriptors.size() != 1) co_return Error(Errc::kCorrupt, "the worker sent no image");
  file->staging = InodeId{allocated.attr().inode()};
  file->staging_image = std::move(descriptors.front());
  co_return ok();
}

}  // namespace gradfs
