// From a validated input to a number in the queue.
#include "fs/base/faults.h"
#include "fs/worker/bound_model.h"

namespace gradfs {

// Gradients are validated outside the lock, so that the next is ready when this one is applied. What depends
// on the configuration in force is staged under it.
Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::stage_and_commit(
    const wire::PushRequest& request) {
  if (request.kind() == wire::SLOT_SYNC && is_small() && queue_.empty()) {
    co_return co_await commit_while_checking(request);
  }
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

Result<wire::CommitPushRequest> BoundModel::commit_request(const wire::PushRequest& request,
                                                           const Input& input) const {
  wire::CommitPushRequest out;
  out.set_binding(state_.binding());
  *out.mutable_consume() = request.consume();
  wire::CommittedPush& push = *out.mutable_push();
  push.set_kind(request.kind());
  push.set_inode(request.inode());
  *push.mutable_identity() = request.identity();
  wire::PushRecord record;
  if (const auto* gradient = std::get_if<Gradient>(&input)) {
    const GradientMetadata& metadata = gradient->metadata();
    if (!metadata.worker.empty() && metadata.step) {
      push.mutable_key()->set_run(metadata.run);
      push.mutable_key()->set_worker(metadata.worker);
      push.mutable_key()->set_step(*metadata.step);
    }
    if (metadata.loss) {
      record.set_loss(*metadata.loss);
      record.set_has_loss(true);
    }
    if (request.kind() == wire::SLOT_SYNC) record.set_name(request.name());
    out.set_to_disk(committed_config_.ack == Ack::kCommitted);
  }
  if (const auto* change = std::get_if<ConfigChange>(&input)) {
    record.set_config_text(change->text);
    record.set_new_optimizer(change->optimizer_inode.value);
    out.set_config_text(change->text);
    if (change->optimizer_inode) {
      out.set_new_optimizer(change->optimizer_inode.value);
      GRADFS_TRY(const OptimizerLayout layout, OptimizerLayout::make(*layout_, change->config.optimizer));
      out.set_new_optimizer_size(layout.file_bytes());
    }
  }
  push.set_record(record.SerializeAsString());
  return out;
}

Task<> BoundModel::send_commit(std::shared_ptr<CommitCall> call, wire::CommitPushRequest request) {
  call->reply.emplace(
      co_await context_.master.call<rpc::CommitPush>(std::move(request), {.timeout_ns = kCommitTimeout_ns}));
  call->changed.notify_all();
}

Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::commit(const wire::PushRequest& request,
                                                                     Input input) {
  GRADFS_CO_TRY(auto out, commit_request(request, input));
  (void)GRADFS_FAULT("worker.commit.staged");
  GRADFS_CO_TRY(auto reply, co_await context_.master.call<rpc::CommitPush>(
                                std::move(out), {.timeout_ns = kCommitTimeout_ns}));
  co_return co_await take_number(request, std::move(reply), std::move(input));
}

// The look at the values of a small gradient takes about as long as the commit: both at once. Nothing waits
// between the begin and the end of the look.
Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::commit_while_checking(
    const wire::PushRequest& request) {
  auto lock = co_await commit_mutex_.lock();
  if (failed_) co_return *failed_;
  auto call = std::make_shared<CommitCall>(context_.executor);
  Result<Input> input = Error(Errc::kIo);
  GRADFS_CO_TRYV(send_and_check(request, call, input));
  while (!call->reply) co_await call->changed.wait(-1);
  if (!*call->reply) co_return call->reply->error();
  co_return co_await take_number(request, std::move(*call->reply).value(), std::move(input));
}

// input: the gradient, or why it is refused although its commit is on its way.
Result<void> BoundModel::send_and_check(const wire::PushRequest& request,
                                        const std::shared_ptr<CommitCall>& call, Result<Input>& input) {
  const InodeId inode{request.inode()};
  LandedMap kept = take_slot_map(inode);
  EarlyCheck early(kept, context_.compute);
  GRADFS_TRY(const UniqueFd image, context_.store.open_image(inode, false));
  GRADFS_TRY(Gradient opened, open_gradient_unchecked(*layout_, image, kept.mapping));
  input = Result<Input>(std::move(opened));
  GRADFS_TRY(auto out, commit_request(request, input.value()));
  if (!scope_.spawn(send_commit(call, std::move(out)))) {
    return Error(Errc::kUnavailable, "the worker is ending");
  }
  (void)GRADFS_FAULT("worker.commit.sent");
  const Gradient& gradient = std::get<Gradient>(input.value());
  if (early.finish(gradient)) return ok();
  const Result<void> checked = check_values(*layout_, gradient, context_.compute);
  if (!checked) input = checked.error();
  return ok();
}

// What the commit of an input, or of what is refused after all, has brought.
Task<Result<std::shared_ptr<BoundModel::Number>>> BoundModel::take_number(const wire::PushRequest& request,
                                                                          wire::CommitPushResponse reply,
                                                                          Result<Input> input) {
  if (reply.repeated_step_sequence() != 0) {
    if (!input) co_return std::move(input).error();
    GRADFS_CO_TRYV(co_await wait_applied(Sequence{reply.repeated_step_sequence()}));
    co_return Error(Errc::kExists, "this run, worker and step has counted before");
  }
  (void)GRADFS_FAULT("worker.commit.answered");
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
  auto number = std::make_shared<Number>(context_.executor);
  number->sequence = sequence;
  number->kind = request.kind();
  number->inode = InodeId{request.inode()};
  if (input) {
    if (const auto* gradient = std::get_if<Gradient>(&input.value())) note_landed(gradient->metadata());
    number->input.emplace(std::move(input).value());
  } else {
    refuse_later(*number, std::move(input).error(), request.identity(), request.name());
  }
  enqueue(number);
  co_return number;
}

void BoundModel::refuse_later(Number& number, Error error, const wire::Identity& identity,
                              const std::string& name) {
  number.outcome = std::move(error);
  wire::PushRequest& request = number.to_refuse.emplace();
  request.set_kind(number.kind);
  request.set_inode(number.inode.value);
  *request.mutable_identity() = identity;
  request.set_name(name);
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

}  // namespace gradfs
