// The way of a push: staged and committed (commit.cc), queued, applied; or refused.
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/base/faults.h"
#include "fs/base/log.h"
#include "fs/worker/bound_model.h"

namespace gradfs {
namespace {

constexpr std::size_t kActiveMax = 512;
constexpr std::uint32_t kRejectedKept = 100;

}  // namespace

bool BoundModel::is_gradient(wire::PushKind kind) {
  return kind == wire::GRADIENT_CLOSE || kind == wire::GRADIENT_RENAME || kind == wire::SLOT_SYNC;
}

bool BoundModel::is_refusal(Errc code) {
  return code == Errc::kInvalid || code == Errc::kNotFinite || code == Errc::kExists ||
         code == Errc::kRange || code == Errc::kQuota;
}

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
  wire::OutcomeRequest again = ask;
  GRADFS_CO_TRY(auto outcome, co_await context_.master.call<rpc::PushOutcome>(
                                  std::move(ask), {.timeout_ns = kCommitTimeout_ns}));
  if (!outcome.known()) co_return wire::PushResponse();
  *known = true;
  if (outcome.error() != 0) {
    co_return Error(from_wire(static_cast<std::uint16_t>(outcome.error())), outcome.reason());
  }
  const Sequence sequence{outcome.sequence()};
  {
    auto lock = co_await commit_mutex_.lock();
    GRADFS_CO_TRYV(co_await fill_gap(Sequence{sequence.value + 1}));
  }
  GRADFS_CO_TRYV(co_await wait_applied(sequence));
  // It may have been refused since: the worker was killed while it looked at the values.
  GRADFS_CO_TRY(outcome, co_await context_.master.call<rpc::PushOutcome>(std::move(again),
                                                                         {.timeout_ns = kCommitTimeout_ns}));
  if (outcome.error() != 0) {
    co_return Error(from_wire(static_cast<std::uint16_t>(outcome.error())), outcome.reason());
  }
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
  if (committed_config_.ack == Ack::kCommitted && is_gradient(request.kind()) && number->input) {
    GRADFS_CO_TRYV(co_await freeze(*number));
    co_return response_now(number->sequence);
  }
  while (number->phase != Number::Phase::kDone) co_await number->changed.wait(-1);
  if (!number->outcome) co_return number->outcome.error();
  co_return response_now(number->sequence);
}

// The writer of a slot gets its bytes back before the number is applied: copy them first.
Task<Result<void>> BoundModel::freeze(Number& number) {
  if (number.kind != wire::SLOT_SYNC) co_return ok();
  if (number.phase == Number::Phase::kQueued && number.input) {
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
Task<Result<void>> BoundModel::send_refusal(const wire::PushRequest& request, const Error& error,
                                            Sequence voided) {
  wire::RejectPushRequest out;
  out.set_binding(state_.binding());
  *out.mutable_identity() = request.identity();
  out.set_name(request.name());
  out.set_reason(error.message());
  out.set_error(static_cast<std::uint32_t>(error.code));
  out.set_keep(kRejectedKept);
  out.set_inode(request.inode());
  out.set_void_sequence(voided.value);
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
  GRADFS_CO_TRYV(
      co_await context_.master.call<rpc::RejectPush>(std::move(out), {.timeout_ns = kCommitTimeout_ns}));
  co_return ok();
}

Task<Error> BoundModel::reject(const wire::PushRequest& request, Error error) {
  auto stored = co_await send_refusal(request, error, Sequence{});
  if (!stored) spdlog::warn("{}: cannot keep a refused file: {}", state_.path(), stored.error().message());
  co_return error;
}

// Before its number is used up: a retry of the push must not find a number that counted.
Task<> BoundModel::refuse_committed(Number& number) {
  while (number.to_refuse && !stopping_) {
    auto stored = co_await send_refusal(*number.to_refuse, number.outcome.error(), number.sequence);
    if (stored || stored.error().code == Errc::kNotFound) {
      (void)GRADFS_FAULT("worker.refuse.recorded");
      number.to_refuse.reset();
      co_return;
    }
    spdlog::warn("{}: cannot refuse number {}: {}", state_.path(), number.sequence.value,
                 stored.error().message());
    co_await context_.executor.clock().sleep_ns(kSecond_ns);
  }
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
