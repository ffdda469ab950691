#include "coproc/descent/engine.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "coproc/descent/kernels.h"
#include "coproc/descent/stripe_pass.h"
#include "fs/base/check.h"

namespace gradfs {
namespace {

#ifndef MADV_POPULATE_WRITE
constexpr int MADV_POPULATE_WRITE = 23;
#endif

Result<std::uint64_t> size_of(const UniqueFd& fd) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return errno_error("fstat");
  return static_cast<std::uint64_t>(status.st_size);
}

Result<Mapping> map_whole(const UniqueFd& fd, std::uint64_t bytes, const char* what) {
  GRADFS_TRY(const std::uint64_t size, size_of(fd));
  if (size != bytes) {
    return Error(Errc::kCorrupt, std::string(what) + " has " + std::to_string(size) + " bytes instead of " +
                                     std::to_string(bytes));
  }
  GRADFS_TRY(Mapping mapping, Mapping::map(fd, bytes, true));
  // So that the first number does not pay for page faults; where the kernel cannot, it will.
  ::madvise(mapping.data(), mapping.size(), MADV_POPULATE_WRITE);
  return mapping;
}

Result<Mapping> map_optimizer(const UniqueFd& fd, const OptimizerLayout& layout) {
  GRADFS_TRY(Mapping mapping, map_whole(fd, layout.file_bytes(), "the optimizer's file"));
  if (std::memcmp(mapping.data(), layout.header().data(), layout.header().size()) != 0) {
    return Error(Errc::kCorrupt,
                 "the optimizer's file is not of this model and " + std::string(to_text(layout.optimizer())));
  }
  return mapping;
}

bool has_same_states(Optimizer a, Optimizer b) {
  for (int i = 0; i < GRADFS_STATES_MAX; ++i) {
    const char* one = builtin_rule(a).state_names[i];
    const char* other = builtin_rule(b).state_names[i];
    if ((one == nullptr) != (other == nullptr)) return false;
    if (one != nullptr && std::strcmp(one, other) != 0) return false;
  }
  return true;
}

}  // namespace

Engine::~Engine() = default;

ControlHeader& Engine::header() const { return *reinterpret_cast<ControlHeader*>(control_.data()); }

SlotHeader& Engine::slot_header(std::uint32_t slot) const {
  return *reinterpret_cast<SlotHeader*>(control_.data() + header().slots_offset + slot * kSlotBytes);
}

float* Engine::slot_array(std::uint32_t slot, std::uint32_t array) const {
  return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(&slot_header(slot)) + kControlPage) +
         array * kStripeParameters;
}

std::uint64_t& Engine::number_of(std::uint64_t stripe) const {
  return reinterpret_cast<std::uint64_t*>(control_.data() + header().numbers_offset)[stripe];
}

std::uint64_t* Engine::steps_after(Sequence number) const {
  const std::uint64_t tensors = layout_->tensors().size();
  return reinterpret_cast<std::uint64_t*>(control_.data() + header().steps_offset) +
         (number.value & 1) * tensors;
}

Engine::StripeArrays Engine::arrays_of(std::uint64_t index) const {
  const Stripe& stripe = layout_->stripes()[index];
  StripeArrays out;
  out.array[0] =
      reinterpret_cast<float*>(model_.data() + layout_->tensors()[stripe.tensor].file_offset) + stripe.first;
  for (std::uint32_t state = 0; state < optimizer_layout_->state_count(); ++state) {
    out.array[state + 1] =
        reinterpret_cast<float*>(state_.data() + optimizer_layout_->state_offset(stripe.tensor, state)) +
        stripe.first;
  }
  return out;
}

Result<std::unique_ptr<Engine>> Engine::open(EngineFiles files, ThreadPool& pool, FaultHook hook) {
  std::unique_ptr<Engine> engine(new Engine(pool, std::move(hook)));
  GRADFS_TRYV(engine->map(files));
  GRADFS_TRYV(engine->recover());
  engine->mirror_steps();
  return engine;
}

Result<void> Engine::map(const EngineFiles& files) {
  GRADFS_TRY(const ControlState state, read_control(files.control.get()));
  GRADFS_TRY(const std::uint64_t control_bytes, size_of(files.control));
  GRADFS_TRY(control_, map_whole(files.control, control_bytes, "the control file"));
  GRADFS_TRY(ModelLayout layout, ModelLayout::read(files.model.get()));
  layout_ = std::make_unique<ModelLayout>(std::move(layout));
  GRADFS_TRYV(check_control());
  GRADFS_TRY(model_, map_whole(files.model, layout_->file_bytes(), "the model"));
  GRADFS_TRY(OptimizerLayout optimizer, OptimizerLayout::make(*layout_, state.optimizer));
  optimizer_layout_ = std::make_unique<OptimizerLayout>(std::move(optimizer));
  GRADFS_TRY(state_, map_optimizer(files.optimizer, *optimizer_layout_));
  gradient_copies_.resize(header().slot_count);
  return ok();
}

Result<void> Engine::check_control() const {
  const ControlHeader& h = header();
  const ControlSections sections =
      control_sections(layout_->stripes().size(), layout_->tensors().size(), h.slot_count);
  const bool fits = h.layout_hash == layout_->hash() && h.tensor_count == layout_->tensors().size() &&
                    h.stripe_count == layout_->stripes().size() && h.stripe_parameters == kStripeParameters &&
                    h.slot_count >= 1 && h.slot_count <= kControlSlotsMax && h.slot_bytes == kSlotBytes &&
                    h.numbers_offset == sections.numbers && h.steps_offset == sections.steps &&
                    h.ratios_offset == sections.ratios && h.slots_offset == sections.slots &&
                    h.file_bytes == sections.file_bytes;
  if (!fits) return Error(Errc::kCorrupt, "the control file is not of this model");
  return ok();
}

Result<void> Engine::recover() {
  for (std::uint32_t i = 0; i < header().slot_count; ++i) {
    SlotHeader& slot = slot_header(i);
    if (slot.state == static_cast<std::uint32_t>(SlotState::kEmpty)) continue;
    if (slot.stripe >= layout_->stripes().size() ||
        slot.arrays >> (1 + optimizer_layout_->state_count()) != 0) {
      return Error(Errc::kCorrupt, "a scratch slot of the control file does not fit the model");
    }
    hit(FaultPoint::kRepairing);
    if (number_of(slot.stripe) < slot.last) {
      const StripeArrays arrays = arrays_of(slot.stripe);
      const std::size_t bytes = layout_->stripes()[slot.stripe].count * sizeof(float);
      for (std::uint32_t array = 0; array < kArrays; ++array) {
        if ((slot.arrays >> array & 1) != 0) {
          std::memcpy(arrays.array[array], slot_array(i, array), bytes);
        }
      }
      hit(FaultPoint::kRepaired);
      store_in_order(number_of(slot.stripe), slot.last);
    }
    store_in_order(slot.state, static_cast<std::uint32_t>(SlotState::kEmpty));
  }
  return ok();
}

Result<bool> Engine::is_done(Sequence number) const {
  const std::uint64_t done = watermark().value;
  if (number.value <= done) return true;
  if (number.value == done + 1) return false;
  return Error(Errc::kInvalid,
               "number " + std::to_string(number.value) + " comes after " + std::to_string(done));
}

Engine::Outcome Engine::unchanged() const {
  const std::uint64_t* steps = steps_after(watermark());
  return {version(), optimizer(), {steps, steps + layout_->tensors().size()}};
}

void Engine::finish(Sequence number, const Outcome& outcome) {
  hit(FaultPoint::kStripesDone);
  const std::uint64_t parity = number.value & 1;
  std::copy(outcome.steps.begin(), outcome.steps.end(), steps_after(number));
  std::atomic_ref(header().version[parity]).store(outcome.version, std::memory_order_relaxed);
  std::atomic_ref(header().optimizer[parity])
      .store(static_cast<std::uint32_t>(outcome.optimizer), std::memory_order_relaxed);
  hit(FaultPoint::kBuffersWritten);
  store_in_order(header().watermark, number.value);
  hit(FaultPoint::kWatermarkMoved);
  mirror_steps();
  hit(FaultPoint::kMirrored);
}

void Engine::mirror_steps() const {
  const std::uint64_t* steps = steps_after(watermark());
  for (std::uint32_t tensor = 0; tensor < layout_->tensors().size(); ++tensor) {
    const auto value = static_cast<float>(steps[tensor]);
    std::memcpy(state_.data() + optimizer_layout_->step_offset(tensor), &value, sizeof value);
  }
}

Result<void> Engine::adopt_optimizer(Optimizer optimizer, const UniqueFd& file, Outcome& outcome) {
  if (!file) return Error(Errc::kInvalid, "the optimizer changes, so its new file is needed");
  GRADFS_TRY(OptimizerLayout layout, OptimizerLayout::make(*layout_, optimizer));
  GRADFS_TRY(Mapping mapping, map_optimizer(file, layout));
  const bool keeps = has_same_states(this->optimizer(), optimizer);
  if (!keeps) std::fill(outcome.steps.begin(), outcome.steps.end(), 0);
  // The old file stays as it is, so a copy that is interrupted is made again.
  for (std::uint32_t tensor = 0; tensor < layout_->tensors().size(); ++tensor) {
    const std::uint64_t bytes = layout_->tensors()[tensor].count * sizeof(float);
    for (std::uint32_t state = 0; state < layout.state_count(); ++state) {
      std::byte* to = mapping.data() + layout.state_offset(tensor, state);
      if (keeps) {
        std::memcpy(to, state_.data() + optimizer_layout_->state_offset(tensor, state), bytes);
      } else {
        std::memset(to, 0, bytes);
      }
    }
  }
  outcome.optimizer = optimizer;
  optimizer_layout_ = std::make_unique<OptimizerLayout>(std::move(layout));
  state_ = std::move(mapping);
  return ok();
}

Result<void> Engine::apply_config(Sequence number, const DescentConfig& config, UniqueFd optimizer_file) {
  GRADFS_TRY(const bool done, is_done(number));
  if (done) return ok();
  Outcome outcome = unchanged();
  if (config.optimizer != optimizer()) {
    GRADFS_TRYV(adopt_optimizer(config.optimizer, optimizer_file, outcome));
  }
  finish(number, outcome);
  return ok();
}

Result<void> Engine::apply_void(Sequence number) {
  GRADFS_TRY(const bool done, is_done(number));
  if (done) return ok();
  for (std::uint64_t stripe = 0; stripe < layout_->stripes().size(); ++stripe) {
    if (load_acquire(number_of(stripe)) >= number.value) {
      return Error(Errc::kBusy,
                   "number " + std::to_string(number.value) + " is applied in part; it cannot be voided");
    }
  }
  finish(number, unchanged());
  return ok();
}

Sequence Engine::watermark() const noexcept { return Sequence(load_acquire(header().watermark)); }

// A copy by parity may be overwritten two numbers later: read again if the watermark moved meanwhile.
std::uint64_t Engine::version() const noexcept {
  for (;;) {
    const Sequence before = watermark();
    const std::uint64_t value = load_acquire(header().version[before.value & 1]);
    if (watermark() == before) return value;
  }
}

Optimizer Engine::optimizer() const noexcept {
  for (;;) {
    const Sequence before = watermark();
    const std::uint32_t value =
        std::atomic_ref(header().optimizer[before.value & 1]).load(std::memory_order_acquire);
    if (watermark() == before) return optimizer_from_value(value).value_or(Optimizer::kSgd);
  }
}

std::uint64_t Engine::step(std::uint32_t tensor) const { return steps_after(watermark())[tensor]; }

}  // namespace gradfs
