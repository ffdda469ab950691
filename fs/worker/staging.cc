// Staging: from the bytes of a landed file to something that the engine can apply. Refuses what is not right;
// changes nothing.
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/base/log.h"
#include "fs/worker/bound_model.h"

namespace gradfs {
namespace {

constexpr std::size_t kConfigMax_bytes = 64 << 10;

Result<std::string> read_config_text(const UniqueFd& image) {
  struct stat info{};
  if (::fstat(image.get(), &info) != 0) return errno_error("fstat");
  if (static_cast<std::size_t>(info.st_size) > kConfigMax_bytes) {
    return Error(Errc::kInvalid, "descent.toml is longer than 64 KiB");
  }
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  GRADFS_TRYV(read_fully_at(image.get(), std::as_writable_bytes(std::span(text)), 0));
  return text;
}

}  // namespace

Task<Result<BoundModel::Input>> BoundModel::stage(const wire::PushRequest& request) {
  if (request.kind() == wire::CONFIG_EDIT) {
    std::string text = request.config_text();
    if (request.inode() != 0) {
      GRADFS_CO_TRY(UniqueFd image, context_.store.open_image(InodeId{request.inode()}, false));
      GRADFS_CO_TRY(text, read_config_text(image));
    }
    if (text.size() > kConfigMax_bytes) co_return Error(Errc::kInvalid, "descent.toml is longer than 64 KiB");
    co_return co_await stage_config(std::move(text), 0);
  }
  GRADFS_CO_TRY(UniqueFd image, context_.store.open_image(InodeId{request.inode()}, false));
  Result<Input> input = Error(Errc::kIo);
  Mapping kept = take_slot_map(InodeId{request.inode()}).mapping;
  if (is_small() && queue_.empty()) {
    input = stage_file(request.kind(), image, std::move(kept));
  } else {
    co_await context_.blocking.run([&] { input = stage_file(request.kind(), image, std::move(kept)); });
  }
  co_return input;
}

LandedMap BoundModel::take_slot_map(InodeId inode) {
  const auto found = slot_maps_.find(inode);
  if (found == slot_maps_.end()) return {};
  LandedMap kept = std::move(found->second.map);
  slot_maps_.erase(found);
  return kept;
}

Result<BoundModel::Input> BoundModel::stage_file(wire::PushKind kind, const UniqueFd& image, Mapping kept) {
  switch (kind) {
    case wire::GRADIENT_CLOSE:
    case wire::GRADIENT_RENAME:
    case wire::SLOT_SYNC: {
      GRADFS_TRY(Gradient gradient, open_gradient(*layout_, image, context_.compute, std::move(kept)));
      return Input(std::move(gradient));
    }
    case wire::ASSIGN_MODEL: {
      GRADFS_TRY(Assignment assignment, open_assign(*layout_, image, context_.compute));
      return Input(std::move(assignment));
    }
    case wire::ASSIGN_OPTIMIZER: {
      GRADFS_TRY(OptimizerLayout optimizer, OptimizerLayout::make(*layout_, committed_config_.optimizer));
      GRADFS_TRY(Assignment assignment, open_optimizer_assign(*layout_, optimizer, image, context_.compute));
      return Input(std::move(assignment));
    }
    default:
      return Error(Errc::kInvalid, "unknown kind of push");
  }
}

Task<Result<BoundModel::Input>> BoundModel::stage_config(std::string text,
                                                         std::uint64_t known_optimizer_inode) {
  ConfigChange change;
  GRADFS_CO_TRY(change.config, parse_config(text));
  change.text = std::move(text);
  if (known_optimizer_inode != 0) {
    change.optimizer_inode = InodeId{known_optimizer_inode};
    GRADFS_CO_TRY(change.optimizer_file, context_.store.open_image(change.optimizer_inode, false));
  } else if (change.config.optimizer != committed_config_.optimizer) {
    InodeId inode;
    GRADFS_CO_TRY(change.optimizer_file, co_await make_optimizer_file(change.config.optimizer, &inode));
    change.optimizer_inode = inode;
  }
  co_return Input(std::move(change));
}

Task<Result<UniqueFd>> BoundModel::make_optimizer_file(Optimizer optimizer, InodeId* inode) {
  wire::AllocateInodeRequest request;
  request.set_worker(context_.worker.value);
  request.set_mode(0644);
  GRADFS_CO_TRY(auto allocated, co_await context_.master.call<rpc::AllocateInode>(std::move(request), {}));
  *inode = InodeId{allocated.attr().inode()};
  GRADFS_CO_TRY(UniqueFd file, context_.store.open_image(*inode, true));
  GRADFS_CO_TRY(OptimizerLayout layout, OptimizerLayout::make(*layout_, optimizer));
  Result<void> made = ok();
  co_await context_.blocking.run([&] { made = layout.initialise(file.get()); });
  if (!made) {
    GRADFS_CO_TRYV(context_.store.remove_image(*inode));
    co_return std::move(made).error();
  }
  co_return file;
}

// A committed number as the master remembers it. What cannot be read any more becomes a number without input,
// which the apply loop makes void or stops at.
Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::number_from_row(wire::CommittedPush row) {
  auto number = std::make_shared<Number>(context_.executor);
  number->sequence = Sequence{row.sequence()};
  number->kind = row.kind();
  number->inode = InodeId{row.inode()};
  wire::PushRecord record;
  if (!record.ParseFromString(row.record())) co_return Error(Errc::kCorrupt, "record of a push");
  Result<Input> input = Error(Errc::kIo);
  if (row.is_void()) {
    input = Error(Errc::kInvalid, "it was refused");
  } else if (row.kind() == wire::CONFIG_EDIT) {
    input = co_await stage_config(record.config_text(), record.new_optimizer());
  } else {
    auto image = context_.store.open_staged(binding(), number->sequence);
    number->staged = static_cast<bool>(image);
    if (!image) image = context_.store.open_image(number->inode, false);
    if (image) {
      co_await context_.blocking.run([&] { input = stage_file(row.kind(), image.value()); });
    } else {
      input = std::move(image).error();
    }
  }
  if (input) {
    number->input.emplace(std::move(input).value());
  } else if (row.kind() == wire::SLOT_SYNC && !row.is_void() && is_refusal(input.error().code)) {
    refuse_later(*number, std::move(input).error(), row.identity(), record.name());
  } else {
    number->outcome = std::move(input).error();
  }
  co_return number;
}

}  // namespace gradfs
