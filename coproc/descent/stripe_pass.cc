#include "coproc/descent/stripe_pass.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "fs/base/sigbus.h"
#include "fs/base/subnormals.h"

namespace gradfs {
namespace {

constexpr std::size_t kBlock = 32;  // neighbouring stripes that a thread takes at a time

}  // namespace

Result<void> Engine::Pass::run(const std::vector<std::uint32_t>& stripes) {
  const auto slots = std::min<std::size_t>(engine_.pool_.threads(), engine_.header().slot_count);
  engine_.pool_.parallel_for(slots, [&](std::size_t slot, std::size_t) {
    std::optional<FlushSubnormals> flush;  // outside of the guards: what they leave has no destructors
    if (update_.flushes_subnormals()) flush.emplace();
    if (!serve_guarded(inputs_, static_cast<std::uint32_t>(slot), stripes)) unreadable_.store(true);
  });
  if (unreadable_.load()) return Error(Errc::kIo, "the landed file became shorter while it was applied");
  return ok();
}

// Only compute() reads the input, and it changes nothing but the empty slot: it may be left anywhere.
bool Engine::Pass::serve_guarded(std::span<const Mapping* const> unguarded, std::uint32_t slot,
                                 const std::vector<std::uint32_t>& stripes) {
  if (unguarded.empty()) {
    serve(slot, stripes);
    return true;
  }
  bool inner = false;
  const bool outer = run_guarded(unguarded.front()->bytes(),
                                 [&] { inner = serve_guarded(unguarded.subspan(1), slot, stripes); });
  return outer && inner;
}

void Engine::Pass::serve(std::uint32_t slot, const std::vector<std::uint32_t>& stripes) {
  SlotHeader& header = engine_.slot_header(slot);
  header.arrays = update_.arrays();
  header.first = first_.value;
  header.last = last_.value;
  float* fresh[kArrays];
  for (std::uint32_t i = 0; i < kArrays; ++i) fresh[i] = engine_.slot_array(slot, i);
  for (;;) {
    const std::size_t begin = next_block_.fetch_add(1, std::memory_order_relaxed) * kBlock;
    if (begin >= stripes.size() || unreadable_.load(std::memory_order_relaxed)) return;
    for (std::size_t i = begin; i < std::min(begin + kBlock, stripes.size()); ++i) {
      take(slot, header, fresh, stripes[i]);
    }
  }
}

void Engine::Pass::take(std::uint32_t slot, SlotHeader& header, float* const* fresh,
                        std::uint32_t index) const {
  std::uint64_t& stripe_number = engine_.number_of(index);
  const Sequence taken{load_acquire(stripe_number)};
  if (taken >= last_) return;
  engine_.hit(FaultPoint::kStripeBegin);
  const Stripe& stripe = engine_.layout_->stripes()[index];
  const StripeArrays arrays = engine_.arrays_of(index);
  header.stripe = index;
  if (!update_.compute(slot, stripe, taken, arrays.array, fresh)) return;
  engine_.hit(FaultPoint::kComputed);
  store_in_order(header.state, static_cast<std::uint32_t>(SlotState::kFull));
  engine_.hit(FaultPoint::kFull);
  place(arrays, fresh, stripe.count);
  engine_.hit(FaultPoint::kInPlace);
  store_in_order(stripe_number, last_.value);
  engine_.hit(FaultPoint::kNumbered);
  store_in_order(header.state, static_cast<std::uint32_t>(SlotState::kEmpty));
  engine_.hit(FaultPoint::kEmptied);
}

void Engine::Pass::place(const StripeArrays& arrays, const float* const* fresh, std::uint32_t count) const {
  for (std::uint32_t i = 0; i < kArrays; ++i) {
    if ((update_.arrays() >> i & 1) == 0) continue;
    // In two parts where a test may want to stop in the middle.
    const std::uint32_t half = engine_.hook_ ? count / 2 : 0;
    if (half > 0) {
      std::memcpy(arrays.array[i], fresh[i], half * sizeof(float));
      engine_.hit(FaultPoint::kHalfInPlace);
    }
    std::memcpy(arrays.array[i] + half, fresh[i] + half, (count - half) * sizeof(float));
  }
}

}  // namespace gradfs
