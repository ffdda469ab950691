// The way of a push: staged, committed, queued, applied; or refused.
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/base/log.h"
#include "fs/worker/bound_model.h"

namespace gradfs {
namespace {

constexpr std::int64_t kCommitTimeout_ns = 120 * kSecond_ns;
constexpr std::size_t kActiveMax = 512;
constexpr std::uint32_t kRejectedKept = 100;

bool is_gradient(wire::PushKind kind) {
  return kind == wire::GRADIENT_CLOSE || kind == wire::GRADIENT_RENAME || kind == wire::SLOT_SYNC;
}

// Refusals are about the file; everything else (the master is away, no memory) says nothing about it.
bool is_refusal(Errc code) {
  return code == Errc::kInvalid || code == Errc::kNotFinite || code == Errc::kExists ||
         code == Errc::kRange || code == Errc::kQuota;
}

}  // namespace

Task<Result<wire::PushResponse>> BoundModel::push(wire::PushRequest request) {
  const wire::Identity& identity = request.identity();
  const IdentityKey key{identity.session(), identity.inode(), identity.ordinal()};
  if (const auto found = active_.find(key); found != active_.end()) {
    const auto active = found->second;
    while (!active->done) co_await active->changed.wait(-1);
    co_return active->outcome;
  }
  if (active_.size() >= kActiveMax)
    co_return Error(Errc::kQuota, "512 pushes are under way in this directory");
  auto active = std::make_shared<ActivePush>(context_.executor);
  active_[key] = active;
  auto outcome = co_await run_push(active, std::move(request));
  active->outcome = outcome;
  active->done = true;
  active->changed.notify_all();
  active_.erase(key);
  co_return outcome;
}

wire::PushResponse BoundModel::response_now(Sequence sequence) const {
  wire::PushResponse response;
  response.set_sequence(sequence.value);
  response.set_version(engine_->version());
  return response;
}

Task<Result<wire::PushResponse>> BoundModel::known_outcome(const wire::PushRequest& request, bool* known) {
  *known = false;
  wire::OutcomeRequest ask;
  ask.set_binding(state_.binding());
  *ask.mutable_identity() = request.identity();
  GRADFS_CO_TRY(auto outcome, co_await context_.master.call<rpc::PushOutcome>(
                                  std::move(ask), {.timeout_ns = kCommitTimeout_ns}));
  if (!outcome.known()) co_return wire::PushResponse();
  *known = true;
  if (outcome.error() != 0) {
    co_return Error(from_wire(static_cast<std::uint16_t>(outcome.error())), outcome.reason());
  }
  const Sequence sequence{outcome.sequence()};
  GRADFS_CO_TRYV(co_await wait_applied(sequence));
  co_return response_now(sequence);
}

Task<Result<wire::PushResponse>> BoundModel::run_push(std::shared_ptr<ActivePush> active,
                                                      wire::PushRequest request) {
  if (failed_) co_return *failed_;
  if (request.retry()) {
    bool known = false;
    auto outcome = co_await known_outcome(request, &known);
    if (known || !outcome) co_return outcome;
  }
  auto committed = co_await stage_and_commit(request);
  if (!committed) {
    if (!is_refusal(committed.error().code)) co_return std::move(committed).error();
    co_return co_await reject(request, std::move(committed).error());
  }
  const std::shared_ptr<Number> number = std::move(committed).value();
  active->number = number;
  active->changed.notify_all();
  if (committed_config_.ack == Ack::kCommitted && is_gradient(request.kind())) {
    GRADFS_CO_TRYV(co_await freeze(*number));
    co_return response_now(number->sequence);
  }
  while (number->phase != Number::Phase::kDone) co_await number->changed.wait(-1);
  if (!number->outcome) co_return number->outcome.error();
  co_return response_now(number->sequence);
}

// Gradients are validated outside the lock, so that the next is ready when this one is applied. What depends
// on the configuration in force is staged under it.
Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::stage_and_commit(
    const wire::PushRequest& request) {
  const bool early = is_gradient(request.kind()) || request.kind() == wire::ASSIGN_MODEL;
  std::optional<Input> input;
  if (early) {
    GRADFS_CO_TRY(auto staged, co_await stage(request));
    input.emplace(std::move(staged));
  }
  auto lock = co_await commit_mutex_.lock();
  if (failed_) co_return *failed_;
  if (!early) {
    GRADFS_CO_TRY(auto staged, co_await stage(request));
    input.emplace(std::move(staged));
  }
  co_return co_await commit(request, std::move(*input));
}

Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::commit(const wire::PushRequest& request,
                                                                     Input input) {
  wire::CommitPushRequest out;
  out.set_binding(state_.binding());
  *out.mutable_consume() = request.consume();
  wire::CommittedPush& push = *out.mutable_push();
  push.set_kind(request.kind());
  push.set_inode(request.inode());
  *push.mutable_identity() = request.identity();
  wire::PushRecord record;
  std::optional<GradientMetadata> metadata;
  if (auto* gradient = std::get_if<Gradient>(&input)) {
    metadata = gradient->metadata();
    if (!metadata->worker.empty() && metadata->step) {
      push.mutable_key()->set_run(metadata->run);
      push.mutable_key()->set_worker(metadata->worker);
      push.mutable_key()->set_step(*metadata->step);
    }
    if (metadata->loss) {
      record.set_loss(*metadata->loss);
      record.set_has_loss(true);
    }
    out.set_to_disk(committed_config_.ack == Ack::kCommitted);
  }
  if (auto* change = std::get_if<ConfigChange>(&input)) {
    record.set_config_text(change->text);
    record.set_new_optimizer(change->optimizer_inode.value);
    out.set_config_text(change->text);
    if (change->optimizer_inode) {
      out.set_new_optimizer(change->optimizer_inode.value);
      GRADFS_CO_TRY(OptimizerLayout layout, OptimizerLayout::make(*layout_, change->config.optimizer));
      out.set_new_optimizer_size(layout.file_bytes());
    }
  }
  push.set_record(record.SerializeAsString());
  GRADFS_CO_TRY(auto reply, co_await context_.master.call<rpc::CommitPush>(
                                std::move(out), {.timeout_ns = kCommitTimeout_ns}));
  if (reply.repeated_step_sequence() != 0) {
    GRADFS_CO_TRYV(co_await wait_applied(Sequence{reply.repeated_step_sequence()}));
    co_return Error(Errc::kExists, "this run, worker and step has counted before");
  }
  const Sequence sequence{reply.sequence()};
  GRADFS_CO_TRYV(co_await fill_gap(sequence));
  if (sequence <= last_queued_) {  // committed by an earlier life of this call
    for (const auto& queued : queue_) {
      if (queued->sequence == sequence) co_return queued;
    }
    auto done = std::make_shared<Number>(context_.executor);
    done->sequence = sequence;
    done->outcome = ok();
    done->phase = Number::Phase::kDone;
    co_return done;
  }
  if (auto* change = std::get_if<ConfigChange>(&input)) committed_config_ = change->config;
  if (metadata) note_landed(*metadata);
  auto number = std::make_shared<Number>(context_.executor);
  number->sequence = sequence;
  number->kind = request.kind();
  number->inode = InodeId{request.inode()};
  number->input.emplace(std::move(input));
  enqueue(number);
  co_return number;
}

// Numbers that the master gave and whose answer never came to us (a commit that timed out) are applied all
// the same.
Task<Result<void>> BoundModel::fill_gap(Sequence below) {
  if (last_queued_.value + 1 >= below.value) co_return ok();
  wire::BindingRequest request;
  request.set_binding(state_.binding());
  GRADFS_CO_TRY(auto reply, co_await context_.master.call<rpc::GetBinding>(
                                std::move(request), {.timeout_ns = kCommitTimeout_ns}));
  for (const auto& row : reply.binding().pending()) {
    if (row.sequence() <= last_queued_.value || row.sequence() >= below.value) continue;
    GRADFS_CO_TRY(auto number, co_await number_from_row(row));
    if (number->input) {
      if (auto* change = std::get_if<ConfigChange>(&*number->input)) committed_config_ = change->config;
    }
    enqueue(std::move(number));
  }
  if (last_queued_.value + 1 != below.value) {
    failed_ = Error(Errc::kCorrupt, "the master skipped a number before " + std::to_string(below.value));
    co_return *failed_;
  }
  co_return ok();
}

void BoundModel::enqueue(std::shared_ptr<Number> number) {
  last_queued_ = number->sequence;
  if (number->input) {
    if (auto* change = std::get_if<ConfigChange>(&*number->input)) committed_config_ = change->config;
  }
  queue_.push_back(std::move(number));
  queue_changed_.notify_all();
}

// The writer of a slot gets its bytes back before the number is applied: copy them first.
Task<Result<void>> BoundModel::freeze(Number& number) {
  if (number.kind != wire::SLOT_SYNC) co_return ok();
  if (number.phase == Number::Phase::kQueued) {
    GRADFS_CO_TRY(UniqueFd image, context_.store.open_image(number.inode, false));
    Result<UniqueFd> copy = Error(Errc::kIo);
    Result<Input> input = Error(Errc::kIo);
    co_await context_.blocking.run([&] {
      copy = context_.store.stage_copy(binding(), number.sequence, image);
      if (copy) input = stage_file(number.kind, copy.value());
    });
    if (input && number.phase == Number::Phase::kQueued) {
      number.input.emplace(std::move(input).value());
      number.staged = true;
      co_return ok();
    }
  }
  // Being applied, or no memory for a copy: a few milliseconds.
  while (number.phase != Number::Phase::kDone) co_await number.changed.wait(-1);
  co_return ok();
}

Task<Result<void>> BoundModel::detach(wire::Identity identity) {
  const auto found = active_.find(IdentityKey{identity.session(), identity.inode(), identity.ordinal()});
  if (found == active_.end()) co_return ok();
  const auto active = found->second;
  while (!active->done && !active->number) co_await active->changed.wait(-1);
  if (active->done) co_return ok();
  const auto number = active->number;
  co_return co_await freeze(*number);
}

// rejected/ keeps what was refused, with the reason. A slot stays where it is and is copied, while there is
// room.
Task<Error> BoundModel::reject(const wire::PushRequest& request, Error error) {
  wire::RejectPushRequest out;
  out.set_binding(state_.binding());
  *out.mutable_identity() = request.identity();
  out.set_name(request.name());
  out.set_reason(error.message());
  out.set_error(static_cast<std::uint32_t>(error.code));
  out.set_keep(kRejectedKept);
  out.set_inode(request.inode());
  const bool by_rename = request.kind() == wire::GRADIENT_RENAME;
  if (request.kind() == wire::GRADIENT_CLOSE) *out.mutable_consume() = request.consume();
  if (request.kind() == wire::CONFIG_EDIT && request.inode() == 0) out.set_inline_data(request.config_text());
  if (request.inode() != 0 && !by_rename) {
    auto image = context_.store.open_image(InodeId{request.inode()}, false);
    struct stat info{};
    if (image && ::fstat(image.value().get(), &info) == 0)
      out.set_size(static_cast<std::uint64_t>(info.st_size));
  }
  if (request.kind() == wire::SLOT_SYNC) {
    std::uint64_t size = 0;
    auto copy = co_await copy_for_rejected(InodeId{request.inode()}, &size);
    out.set_inode(copy ? copy.value().value : 0);
    out.set_size(size);
  }
  ++refused_;
  last_refusal_ = error.message();
  auto stored =
      co_await context_.master.call<rpc::RejectPush>(std::move(out), {.timeout_ns = kCommitTimeout_ns});
  if (!stored) spdlog::warn("{}: cannot keep a refused file: {}", state_.path(), stored.error().message());
  co_return error;
}

Task<Result<InodeId>> BoundModel::copy_for_rejected(InodeId slot, std::uint64_t* size) {
  GRADFS_CO_TRY(UniqueFd image, context_.store.open_image(slot, false));
  struct stat info{};
  if (::fstat(image.get(), &info) != 0) co_return errno_error("fstat");
  GRADFS_CO_TRY(StoreUsage usage, context_.store.usage());
  const auto bytes = static_cast<std::uint64_t>(info.st_blocks) * 512;
  if (usage.used_bytes + bytes > usage.capacity_bytes / 2) co_return Error(Errc::kNoSpace, "rejected/");
  wire::AllocateInodeRequest request;
  request.set_worker(context_.worker.value);
  request.set_mode(0600);
  GRADFS_CO_TRY(auto allocated, co_await context_.master.call<rpc::AllocateInode>(std::move(request), {}));
  const InodeId inode{allocated.attr().inode()};
  GRADFS_CO_TRY(UniqueFd copy, context_.store.open_image(inode, true));
  Result<void> copied = ok();
  co_await context_.blocking.run([&] { copied = ImageStore::copy_contents(image, copy); });
  if (!copied) {
    GRADFS_CO_TRYV(context_.store.remove_image(inode));
    co_return std::move(copied).error();
  }
  *size = static_cast<std::uint64_t>(info.st_size);
  co_return inode;
}

}  // namespace gradfs
