#include "coproc/descent/engine.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>

#include "fs/base/check.h"
#include "fs/base/sigbus.h"

namespace gradfs {
namespace {

template <class T>
void store_release(T& target, T value) {
  std::atomic_ref<T>(target).store(value, std::memory_order_release);
}

template <class T>
T load_acquire(T& source) {
  return std::atomic_ref<T>(source).load(std::memory_order_acquire);
}

bool same_states(const OptimizerLayout& a, const OptimizerLayout& b) {
  const gradfs_rule& left = builtin_rule(a.optimizer());
  const gradfs_rule& right = builtin_rule(b.optimizer());
  if (a.state_count() != b.state_count()) return false;
  for (std::uint32_t i = 0; i < a.state_count(); ++i) {
    if (std::string_view(left.state_names[i]) != right.state_names[i]) return false;
  }
  return a.state_count() > 0;
}

Result<std::uint64_t> file_size(const UniqueFd& fd) {
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return errno_error("fstat");
  return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace

// A scratch slot: its header and its arrays, parameters first.
struct Engine::Slot {
  SlotHeader* header;
  float* arrays;
  [[nodiscard]] float* array(std::uint32_t index) const { return arrays + std::size_t{index} * kStripeParameters; }
};

// What happens to one stripe, in place. `scratch` is an aligned buffer of a stripe's size, one for each thread.
struct Engine::Update {
  std::function<int(const Stripe&, float* scratch)> apply;
};

Result<void> format_control(int fd, const ModelLayout& model, const ControlOptions& options) {
  if (options.thread_slots == 0 || options.thread_slots > kControlSlotsMax) {
    return Error(Errc::kInvalid, "thread_slots is " + std::to_string(options.thread_slots));
  }
  const ControlSections sections = control_sections(model.stripes().size(), model.tensors().size(), options.thread_slots);
  if (::ftruncate(fd, 0) != 0) return errno_error("ftruncate");
  GRADFS_TRYV(preallocate(fd, sections.file_bytes));
  ControlHeader header{};
  header.format_version = kControlVersion;
  header.slot_count = options.thread_slots;
  header.layout_hash = model.hash();
  header.tensor_count = model.tensors().size();
  header.stripe_count = model.stripes().size();
  header.stripe_parameters = kStripeParameters;
  header.numbers_offset = sections.numbers;
  header.steps_offset = sections.steps;
  header.slots_offset = sections.slots;
  header.slot_bytes = kSlotBytes;
  header.file_bytes = sections.file_bytes;
  header.watermark = options.watermark.value;
  header.version[0] = header.version[1] = options.version;
  header.optimizer[0] = header.optimizer[1] = static_cast<std::uint32_t>(options.optimizer);
  const std::vector<std::uint64_t> numbers(model.stripes().size(), options.watermark.value);
  GRADFS_TRYV(write_fully_at(fd, std::as_bytes(std::span(numbers)), sections.numbers));
  GRADFS_TRYV(write_fully_at(fd, std::as_bytes(std::span(&header, 1)), 0));
  header.magic = kControlMagic;
  return write_fully_at(fd, std::as_bytes(std::span(&header.magic, 1)), 0);
}

Result<ControlState> read_control(int fd) {
  ControlHeader header{};
  auto read = read_fully_at(fd, std::as_writable_bytes(std::span(&header, 1)), 0);
  if (!read || header.magic != kControlMagic) return Error(Errc::kCorrupt, "not a control file");
  if (header.format_version != kControlVersion) {
    return Error(Errc::kCorrupt, "control file of format " + std::to_string(header.format_version));
  }
  const auto parity = header.watermark & 1;
  const auto optimizer = optimizer_from_value(header.optimizer[parity]);
  if (!optimizer) return Error(Errc::kCorrupt, "control file with an unknown optimizer");
  return ControlState{Sequence{header.watermark}, header.version[parity], *optimizer};
}

Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::open(EngineFiles files, ThreadPool& pool, FaultHook hook) {
  std::unique_ptr<Engine> engine(new Engine(pool, std::move(hook)));
  GRADFS_TRYV(engine->map(std::move(files)));
  engine->recover();
  engine->mirror_steps();
  return engine;
}

Result<void> Engine::map(EngineFiles files) {
  GRADFS_TRY(ModelLayout layout, ModelLayout::read(files.model.get()));
  layout_ = std::make_unique<ModelLayout>(std::move(layout));
  GRADFS_TRY(const ControlState stands, read_control(files.control.get()));
  GRADFS_TRY(const std::uint64_t control_bytes, file_size(files.control));
  GRADFS_TRY(control_, Mapping::map(files.control, control_bytes, true));
  GRADFS_TRYV(check_control(control_bytes));
  GRADFS_TRY(OptimizerLayout optimizer, OptimizerLayout::make(*layout_, stands.optimizer));
  optimizer_layout_ = std::make_unique<OptimizerLayout>(std::move(optimizer));
  GRADFS_TRY(const std::uint64_t model_bytes, file_size(files.model));
  GRADFS_TRY(const std::uint64_t state_bytes, file_size(files.optimizer));
  if (model_bytes < layout_->file_bytes()) return Error(Errc::kCorrupt, "the model's file is too short");
  if (state_bytes < optimizer_layout_->file_bytes()) return Error(Errc::kCorrupt, "the optimizer's file is too short");
  GRADFS_TRY(model_, Mapping::map(files.model, layout_->file_bytes(), true));
  GRADFS_TRY(state_, Mapping::map(files.optimizer, optimizer_layout_->file_bytes(), true));
  return ok();
}

Result<void> Engine::check_control(std::size_t control_bytes) const {
  const ControlHeader& control = header();
  const ControlSections sections =
      control_sections(layout_->stripes().size(), layout_->tensors().size(), control.slot_count);
  if (control.layout_hash != layout_->hash() || control.stripe_parameters != kStripeParameters) {
    return Error(Errc::kCorrupt, "the control file belongs to another model");
  }
  if (control.slot_bytes != kSlotBytes || control.file_bytes != sections.file_bytes || control_bytes < sections.file_bytes) {
    return Error(Errc::kCorrupt, "the control file has another size");
  }
  if (control.slot_count < pool_.threads()) {
    return Error(Errc::kInvalid, "the control file has scratch for " + std::to_string(control.slot_count) + " threads");
  }
  return ok();
}

std::uint64_t& Engine::stripe_number(std::uint32_t stripe) const {
  return reinterpret_cast<std::uint64_t*>(control_.data() + header().numbers_offset)[stripe];
}

std::uint64_t* Engine::steps_copy(std::uint64_t parity) const {
  auto* steps = reinterpret_cast<std::uint64_t*>(control_.data() + header().steps_offset);
  return steps + (parity & 1) * layout_->tensors().size();
}

std::vector<std::uint64_t> Engine::current_steps() const {
  const std::uint64_t* steps = steps_copy(watermark().value);
  return {steps, steps + layout_->tensors().size()};
}

Engine::Slot Engine::slot(std::size_t index) const {
  std::byte* base = control_.data() + header().slots_offset + index * kSlotBytes;
  return {reinterpret_cast<SlotHeader*>(base), reinterpret_cast<float*>(base + kControlPage)};
}

float* Engine::parameters(const Stripe& stripe) const {
  const std::uint64_t offset = layout_->tensors()[stripe.tensor].file_offset + 4 * stripe.first;
  return reinterpret_cast<float*>(model_.data() + offset);
}

float* Engine::state(const Stripe& stripe, std::uint32_t index) const {
  return reinterpret_cast<float*>(state_.data() + optimizer_layout_->state_offset(stripe.tensor, index) + 4 * stripe.first);
}

// A killed process may have left stripes half updated: their copies say what they were.
void Engine::recover() {
  for (std::size_t i = 0; i < header().slot_count; ++i) {
    const Slot left = slot(i);
    if (load_acquire(left.header->state) != static_cast<std::uint32_t>(SlotState::kFull)) continue;
    if (left.header->stripe < layout_->stripes().size() &&
        stripe_number(static_cast<std::uint32_t>(left.header->stripe)) < left.header->last) {
      hit(FaultPoint::kRestoring);
      restore(left);
      hit(FaultPoint::kRestored);
    }
    store_release(left.header->state, static_cast<std::uint32_t>(SlotState::kEmpty));
  }
}

void Engine::restore(const Slot& left) {
  const Stripe& stripe = layout_->stripes()[left.header->stripe];
  const std::size_t bytes = std::size_t{stripe.count} * sizeof(float);
  std::memcpy(parameters(stripe), left.array(0), bytes);
  const std::uint32_t states = std::min(left.header->state_count, optimizer_layout_->state_count());
  for (std::uint32_t i = 0; i < states; ++i) std::memcpy(state(stripe, i), left.array(1 + i), bytes);
}

Result<void> Engine::run_stripes(Sequence number, const std::vector<std::uint32_t>& stripes, const Mapping& input,
                                 const Update& update) {
  std::vector<std::vector<float>> scratch(pool_.threads(), std::vector<float>(kStripeParameters));
  std::atomic<bool> unreadable{false};
  std::atomic<bool> refused{false};
  const auto range = std::span<const std::byte>(input.bytes());
  pool_.parallel_for(stripes.size(), [&](std::size_t index, std::size_t thread) {
    const std::uint32_t id = stripes[index];
    if (unreadable || refused || stripe_number(id) >= number.value) return;
    const Stripe& stripe = layout_->stripes()[id];
    const std::size_t bytes = std::size_t{stripe.count} * sizeof(float);
    const Slot own = slot(thread);
    hit(FaultPoint::kStripeBegin);
    std::memcpy(own.array(0), parameters(stripe), bytes);
    for (std::uint32_t i = 0; i < optimizer_layout_->state_count(); ++i) {
      std::memcpy(own.array(1 + i), state(stripe, i), bytes);
    }
    own.header->state_count = optimizer_layout_->state_count();
    own.header->stripe = id;
    own.header->first = own.header->last = number.value;
    hit(FaultPoint::kCopied);
    store_release(own.header->state, static_cast<std::uint32_t>(SlotState::kFull));
    hit(FaultPoint::kFull);
    int status = 0;
    const bool readable = run_guarded(range, [&] { status = update.apply(stripe, scratch[thread].data()); });
    hit(FaultPoint::kUpdated);
    if (readable && status == 0) {
      store_release(stripe_number(id), number.value);
      hit(FaultPoint::kNumbered);
    } else {
      restore(own);
      (readable ? refused : unreadable) = true;
    }
    store_release(own.header->state, static_cast<std::uint32_t>(SlotState::kEmpty));
    hit(FaultPoint::kEmptied);
  });
  if (unreadable) return Error(Errc::kIo, "the landed file became shorter while it was applied");
  if (refused) return Error(Errc::kIo, "the update rule failed");
  return ok();
}

Result<void> Engine::check_next(Sequence number) const {
  if (number.value != watermark().value + 1) {
    return Error(Errc::kInvalid, "number " + std::to_string(number.value) + " after " + std::to_string(watermark().value));
  }
  return ok();
}

void Engine::finish(Sequence number, std::uint64_t new_version, Optimizer new_optimizer,
                    const std::vector<std::uint64_t>& steps) {
  hit(FaultPoint::kStripesDone);
  const auto parity = number.value & 1;
  header().version[parity] = new_version;
  header().optimizer[parity] = static_cast<std::uint32_t>(new_optimizer);
  std::copy(steps.begin(), steps.end(), steps_copy(parity));
  hit(FaultPoint::kBuffersWritten);
  store_release(header().watermark, number.value);
  hit(FaultPoint::kWatermarkMoved);
  mirror_steps();
  hit(FaultPoint::kMirrored);
}

void Engine::mirror_steps() const {
  const std::uint64_t* steps = steps_copy(watermark().value);
  for (std::uint32_t tensor = 0; tensor < layout_->tensors().size(); ++tensor) {
    const auto value = static_cast<float>(steps[tensor]);
    std::memcpy(state_.data() + optimizer_layout_->step_offset(tensor), &value, sizeof value);
  }
}

Result<void> Engine::apply_gradient(Sequence number, const DescentConfig& config, const Gradient& gradient) {
  if (number <= watermark()) return ok();
  GRADFS_TRYV(check_next(number));
  if (config.optimizer != optimizer() || gradient.layout_hash() != layout_->hash()) {
    return Error(Errc::kInvalid, "the gradient or the configuration belongs to another model");
  }
  const gradfs_rule& rule = builtin_rule(config.optimizer);
  std::vector<std::uint64_t> steps = current_steps();
  std::vector<gradfs_hyper> hypers(layout_->tensors().size());
  std::vector<bool> taken(layout_->tensors().size(), false);
  for (std::uint32_t tensor = 0; tensor < hypers.size(); ++tensor) {
    const auto own = config.for_tensor(layout_->tensors()[tensor].name);
    taken[tensor] = gradient.data(tensor) != nullptr && !own.frozen;
    if (!taken[tensor]) continue;
    ++steps[tensor];
    hypers[tensor] = {.size = sizeof(gradfs_hyper),
                      .step = steps[tensor],
                      .lr = own.lr,
                      .weight_decay = own.weight_decay,
                      .momentum = config.momentum,
                      .dampening = config.dampening,
                      .beta1 = config.beta1,
                      .beta2 = config.beta2,
                      .eps = config.eps,
                      .nesterov = config.optimizer == Optimizer::kNesterov ? 1 : 0,
                      .grad_scale = gradient.scale()};
  }
  std::vector<std::uint32_t> stripes;
  for (std::uint32_t i = 0; i < layout_->stripes().size(); ++i) {
    if (taken[layout_->stripes()[i].tensor]) stripes.push_back(i);
  }
  Update update;
  update.apply = [&](const Stripe& stripe, float* scratch) {
    const std::byte* data = gradient.data(stripe.tensor) + 4 * stripe.first;
    const bool aligned = reinterpret_cast<std::uintptr_t>(data) % alignof(float) == 0;
    if (!aligned) std::memcpy(scratch, data, std::size_t{stripe.count} * sizeof(float));
    gradfs_span span{};
    span.size = sizeof span;
    span.n = stripe.count;
    span.param = parameters(stripe);
    span.grad = aligned ? reinterpret_cast<const float*>(data) : scratch;
    for (std::uint32_t i = 0; i < optimizer_layout_->state_count(); ++i) span.state[i] = state(stripe, i);
    return rule.apply(&span, &hypers[stripe.tensor]);
  };
  GRADFS_TRYV(run_stripes(number, stripes, gradient.mapping(), update));
  finish(number, version() + 1, optimizer(), steps);
  return ok();
}

Result<void> Engine::apply_assign(Sequence number, const Assignment& assignment) {
  if (number <= watermark()) return ok();
  GRADFS_TRYV(check_next(number));
  if (assignment.layout_hash() != layout_->hash() || (assignment.is_optimizer() && assignment.optimizer() != optimizer())) {
    return Error(Errc::kInvalid, "the file belongs to another model or optimizer");
  }
  std::vector<std::uint32_t> stripes(layout_->stripes().size());
  std::iota(stripes.begin(), stripes.end(), 0);
  Update update;
  update.apply = [&](const Stripe& stripe, float*) {
    for (std::uint32_t i = 0; i < assignment.arrays(); ++i) {
      float* target = assignment.is_optimizer() ? state(stripe, i) : parameters(stripe);
      std::memcpy(target, assignment.data(stripe.tensor, i) + 4 * stripe.first, std::size_t{stripe.count} * sizeof(float));
    }
    return 0;
  };
  GRADFS_TRYV(run_stripes(number, stripes, assignment.mapping(), update));
  const bool model_changed = !assignment.is_optimizer();
  finish(number, version() + (model_changed ? 1 : 0), optimizer(), model_changed ? current_steps() : assignment.steps());
  return ok();
}

Result<void> Engine::apply_config(Sequence number, const DescentConfig& config, UniqueFd optimizer_file) {
  if (number <= watermark()) return ok();
  GRADFS_TRYV(check_next(number));
  if (config.optimizer == optimizer()) {
    finish(number, version(), optimizer(), current_steps());
    return ok();
  }
  GRADFS_TRY(OptimizerLayout next, OptimizerLayout::make(*layout_, config.optimizer));
  GRADFS_TRY(const std::uint64_t bytes, file_size(optimizer_file));
  if (bytes < next.file_bytes()) return Error(Errc::kInvalid, "the new optimizer's file is too short");
  GRADFS_TRY(Mapping next_state, Mapping::map(optimizer_file, next.file_bytes(), true));
  const bool keep = same_states(*optimizer_layout_, next);
  for (std::uint32_t tensor = 0; keep && tensor < layout_->tensors().size(); ++tensor) {
    for (std::uint32_t i = 0; i < next.state_count(); ++i) {
      std::memcpy(next_state.data() + next.state_offset(tensor, i),
                  state_.data() + optimizer_layout_->state_offset(tensor, i), 4 * layout_->tensors()[tensor].count);
    }
  }
  const std::vector<std::uint64_t> steps =
      keep ? current_steps() : std::vector<std::uint64_t>(layout_->tensors().size(), 0);
  // From here on the new file is the one that mirror_steps() writes.
  state_ = std::move(next_state);
  optimizer_layout_ = std::make_unique<OptimizerLayout>(std::move(next));
  finish(number, version(), config.optimizer, steps);
  return ok();
}

Result<void> Engine::apply_void(Sequence number) {
  if (number <= watermark()) return ok();
  GRADFS_TRYV(check_next(number));
  for (std::uint32_t i = 0; i < layout_->stripes().size(); ++i) {
    if (stripe_number(i) >= number.value) {
      return Error(Errc::kBusy, "a part of the model has taken number " + std::to_string(number.value));
    }
  }
  finish(number, version(), optimizer(), current_steps());
  return ok();
}

Sequence Engine::watermark() const noexcept { return Sequence{load_acquire(header().watermark)}; }

std::uint64_t Engine::version() const noexcept {
  for (;;) {
    const std::uint64_t mark = load_acquire(header().watermark);
    const std::uint64_t value = load_acquire(header().version[mark & 1]);
    if (load_acquire(header().watermark) == mark) return value;
  }
}

Optimizer Engine::optimizer() const noexcept {
  for (;;) {
    const std::uint64_t mark = load_acquire(header().watermark);
    const std::uint32_t value = load_acquire(header().optimizer[mark & 1]);
    if (load_acquire(header().watermark) == mark) return *optimizer_from_value(value);
  }
}

std::uint64_t Engine::step(std::uint32_t tensor) const { return steps_copy(watermark().value)[tensor]; }

}  // namespace gradfs
