#include "fs/worker/bound_model.h"

#include "fs/base/faults.h"
#include "fs/base/log.h"

namespace gradfs {
namespace {

// Applied numbers are forgotten in batches: often enough to free landed images, seldom enough to cost
// nothing.
constexpr std::int64_t kRetireEvery_ns = 20 * kMillisecond_ns;
constexpr std::int64_t kSlotMapIdle_ns = 10 * kSecond_ns;
constexpr std::size_t kSlotMapsMax = 64;
constexpr std::int64_t kRetireTimeout_ns = 30 * kSecond_ns;

}  // namespace

BoundModel::BoundModel(const WorkerContext& context, wire::BindingState state)
    : context_(context),
      state_(std::move(state)),
      applier_(context.executor, 1),
      scope_(context.executor),
      commit_mutex_(context.executor),
      queue_changed_(context.executor),
      applied_changed_(context.executor) {}

BoundModel::~BoundModel() = default;

Task<Result<std::shared_ptr<BoundModel>>> BoundModel::load(const WorkerContext& context,
                                                           wire::BindingState state) {
  std::shared_ptr<BoundModel> model(new BoundModel(context, std::move(state)));
  GRADFS_CO_TRYV(model->open_engine());
  for (const auto& row : model->state_.pending()) {
    if (row.sequence() <= model->applied_.value) continue;
    GRADFS_CO_TRY(auto number, co_await model->number_from_row(row));
    model->enqueue(std::move(number));
  }
  for (const auto& step : model->state_.last_steps()) {
    model->workers_[step.worker()].last_step =
        std::max(model->workers_[step.worker()].last_step, step.last_step());
  }
  model->refused_ = model->state_.refused();
  model->scope_.spawn(model->apply_loop());
  model->scope_.spawn(model->retire_loop());
  co_return model;
}

Result<void> BoundModel::open_engine() {
  wire::CoprocState retired;
  if (!retired.ParseFromString(state_.state())) return Error(Errc::kCorrupt, "state of the binding");
  retired_ = Sequence{state_.retired()};
  applied_text_ = retired.config_text();
  applied_optimizer_ = InodeId{retired.optimizer()};

  EngineFiles files;
  GRADFS_TRY(files.model, context_.store.open_image(InodeId{state_.model()}, false));
  GRADFS_TRY(ModelLayout layout, ModelLayout::read(files.model.get()));
  layout_ = std::make_unique<ModelLayout>(std::move(layout));
  auto control = context_.store.open_control(directory(), false);
  if (!control) return Error(Errc::kLost, "the control file of " + state_.path());
  files.control = std::move(control).value();
  GRADFS_TRY(ControlState stands, read_control(files.control.get()));

  for (const auto& row : state_.pending()) {
    if (row.kind() != wire::CONFIG_EDIT || row.sequence() > stands.watermark.value) continue;
    wire::PushRecord record;
    if (!record.ParseFromString(row.record())) return Error(Errc::kCorrupt, "record of a push");
    applied_text_ = record.config_text();
    if (record.new_optimizer() != 0) applied_optimizer_ = InodeId{record.new_optimizer()};
  }
  GRADFS_TRY(applied_config_, parse_config(applied_text_));
  GRADFS_TRY(files.optimizer, context_.store.open_image(applied_optimizer_, false));
  GRADFS_TRY(engine_, Engine::open(std::move(files), context_.compute));
  applied_ = engine_->watermark();
  last_queued_ = applied_;
  committed_config_ = applied_config_;
  return ok();
}

Result<void> BoundModel::apply_input(Number& number) {
  Input& input = *number.input;
  if (auto* gradient = std::get_if<Gradient>(&input)) {
    return engine_->apply_gradient(number.sequence, applied_config_, *gradient);
  }
  if (auto* assignment = std::get_if<Assignment>(&input))
    return engine_->apply_assign(number.sequence, *assignment);
  auto& change = std::get<ConfigChange>(input);
  return engine_->apply_config(number.sequence, change.config, std::move(change.optimizer_file));
}

Result<void> BoundModel::apply_inputs(std::span<const std::shared_ptr<Number>> numbers) {
  if (numbers.size() == 1) return apply_input(*numbers.front());
  std::vector<const Gradient*> gradients;
  for (const auto& number : numbers) gradients.push_back(&std::get<Gradient>(*number->input));
  return engine_->apply_gradients(numbers.front()->sequence, applied_config_, gradients);
}

std::size_t BoundModel::together() const {
  std::size_t count = 0;
  for (const auto& number : queue_) {
    if (count == kGradientsAtOnce || !number->input || !std::holds_alternative<Gradient>(*number->input))
      break;
    ++count;
  }
  return std::max<std::size_t>(count, 1);
}

// The first numbers of the queue, all of which have inputs, at once.
Task<Result<void>> BoundModel::apply_first(std::size_t count) {
  const std::vector<std::shared_ptr<Number>> numbers(queue_.begin(),
                                                     queue_.begin() + static_cast<std::ptrdiff_t>(count));
  for (const auto& number : numbers) number->phase = Number::Phase::kApplying;
  Result<void> result = ok();
  if (is_small()) {
    result = apply_inputs(numbers);
  } else {
    co_await applier_.run([&] { result = apply_inputs(numbers); });
  }
  co_return result;
}

Task<> BoundModel::apply_loop() {
  while (!stopping_ && !failed_) {
    if (queue_.empty()) {
      co_await queue_changed_.wait(-1);
      continue;
    }
    (void)GRADFS_FAULT("worker.apply.begin");
    std::size_t count = together();
    Result<void> result = ok();
    if (count > 1) {
      (void)GRADFS_FAULT("worker.apply.together");
      result = co_await apply_first(count);
      // One of them cannot be read to its end: one by one, to find out which.
      if (!result) count = 1;
    }
    if (count == 1) {
      const std::shared_ptr<Number> number = queue_.front();
      if (number->input) {
        result = co_await apply_first(1);
      } else {
        number->phase = Number::Phase::kApplying;
        co_await refuse_committed(*number);
        if (stopping_) break;
        result = number->outcome;  // refused, or its bytes could not be read back after a restart
      }
      if (!result) make_void(*number, result.error());
    }
    (void)GRADFS_FAULT("worker.apply.done");
    for (; count > 0; --count) {
      const std::shared_ptr<Number> number = queue_.front();
      queue_.pop_front();
      number->outcome = result;
      number_applied(*number);
    }
  }
  for (const auto& number : queue_) {
    number->outcome = failed_ ? *failed_ : Error(Errc::kUnavailable, "the worker is ending");
    number->phase = Number::Phase::kDone;
    number->changed.notify_all();
  }
  applied_changed_.notify_all();
}

// A number that cannot be applied, because of `why`.
void BoundModel::make_void(const Number& number, const Error& why) {
  if (engine_->watermark() >= number.sequence) return;
  const Result<void> voided = engine_->apply_void(number.sequence);
  if (!voided) {
    failed_ = Error(Errc::kIo, "number " + std::to_string(number.sequence.value) + ": " + why.message());
    spdlog::error("{}: the binding has stopped at {}", state_.path(), failed_->message());
  } else {
    spdlog::warn("{}: number {} is void: {}", state_.path(), number.sequence.value, why.message());
  }
}

void BoundModel::number_applied(Number& number) {
  applied_ = engine_->watermark();
  if (number.outcome && number.input) {
    if (auto* change = std::get_if<ConfigChange>(&*number.input)) {
      applied_config_ = change->config;
      applied_text_ = change->text;
      if (change->optimizer_inode) applied_optimizer_ = change->optimizer_inode;
    }
    note_applied();
  }
  auto* gradient = number.input ? std::get_if<Gradient>(&*number.input) : nullptr;
  if (gradient != nullptr && number.kind == wire::SLOT_SYNC && !number.staged &&
      slot_maps_.size() < kSlotMapsMax) {
    slot_maps_[number.inode] = {gradient->take_map(), context_.executor.clock().now_ns()};
  }
  number.input.reset();  // unmaps the landed file
  number.phase = Number::Phase::kDone;
  number.changed.notify_all();
  applied_changed_.notify_all();
}

Task<Result<void>> BoundModel::wait_applied(Sequence sequence) {
  while (applied_ < sequence) {
    if (failed_) co_return *failed_;
    if (stopping_) co_return Error(Errc::kUnavailable, "the worker is ending");
    co_await applied_changed_.wait(-1);
  }
  co_return ok();
}

// A map of a slot that nobody pushes any more would keep its memory after an unlink.
void BoundModel::prune_slot_maps() {
  const std::int64_t oldest_ns = context_.executor.clock().now_ns() - kSlotMapIdle_ns;
  std::erase_if(slot_maps_, [&](const auto& entry) { return entry.second.used_ns < oldest_ns; });
}

Task<> BoundModel::retire_loop() {
  while (!stopping_) {
    if (retired_ == applied_) {
      co_await applied_changed_.wait(kSlotMapIdle_ns);
      prune_slot_maps();
      continue;
    }
    co_await context_.executor.clock().sleep_ns(kRetireEvery_ns);
    wire::CoprocState state;
    state.set_config_text(applied_text_);
    state.set_optimizer(applied_optimizer_.value);
    state.set_applied(applied_.value);
    const Sequence up_to = applied_;
    wire::RetireRequest request;
    request.set_binding(state_.binding());
    request.set_up_to(up_to.value);
    request.set_state(state.SerializeAsString());
    auto retired =
        co_await context_.master.call<rpc::Retire>(std::move(request), {.timeout_ns = kRetireTimeout_ns});
    if (!retired) {
      if (retired.error().code == Errc::kNotFound) co_return;  // the binding is gone
      spdlog::warn("{}: retire: {}", state_.path(), retired.error().message());
      co_await context_.executor.clock().sleep_ns(kSecond_ns);
      continue;
    }
    (void)GRADFS_FAULT("worker.retire.done");
    for (std::uint64_t n = retired_.value + 1; n <= up_to.value; ++n) {
      auto removed = context_.store.remove_staged(binding(), Sequence{n});
      if (!removed) spdlog::warn("staged copy: {}", removed.error().message());
    }
    retired_ = up_to;
  }
}

Task<> BoundModel::stop() {
  stopping_ = true;
  scope_.close();
  queue_changed_.notify_all();
  applied_changed_.notify_all();
  co_await scope_.join(10 * kSecond_ns);
}

}  // namespace gradfs
