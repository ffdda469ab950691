// One pass of a number, or of several in a row, over stripes: the crash-safe part of the engine, private to
// it.
#pragma once

#include <atomic>
#include <cstring>

#include "coproc/descent/engine.h"

namespace gradfs {

inline std::uint64_t load_acquire(std::uint64_t& word) {
  return std::atomic_ref(word).load(std::memory_order_acquire);
}

// Earlier stores stay before it, and for the compiler later ones after it: what a killed process leaves
// behind is a prefix of its stores.
template <class Word>
void store_in_order(Word& word, Word value) {
  std::atomic_ref(word).store(value, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

inline constexpr std::uint32_t kArrays = 1 + kControlStates;

// Where the parameters (0) and states (1 ..) of a stripe live.
struct Engine::StripeArrays {
  float* array[kArrays] = {};
};

inline bool is_aligned(const std::byte* data) {
  return reinterpret_cast<std::uintptr_t>(data) % alignof(float) == 0;
}
// A stripe of a gradient: the landed bytes themselves, or where they are not aligned `copy`, which gets them.
inline const float* aligned_gradient(const Gradient& gradient, const Stripe& stripe, float* copy) {
  const std::byte* data = gradient.data(stripe.tensor) + stripe.first * sizeof(float);
  if (is_aligned(data)) return reinterpret_cast<const float*>(data);
  std::memcpy(copy, data, stripe.count * sizeof(float));
  return copy;
}

// What a number leaves behind beside the stripes.
struct Engine::Outcome {
  std::uint64_t version = 0;
  Optimizer optimizer = Optimizer::kSgd;
  std::vector<std::uint64_t> steps;
};

// How one number, or several in a row, change a stripe.
class StripeUpdate {
 public:
  // A bit for each array that gets new values.
  [[nodiscard]] virtual std::uint32_t arrays() const = 0;
  // Whether its arithmetic takes subnormal numbers as zero.
  [[nodiscard]] virtual bool flushes_subnormals() const = 0;
  // Writes all of a stripe's new values to `fresh`; false if they are what they were. taken: the last number
  // that the stripe has. May be left at any access to the input as by longjmp.
  [[nodiscard]] virtual bool compute(std::uint32_t slot, const Stripe& stripe, Sequence taken,
                                     const float* const* now, float* const* fresh) const = 0;

 protected:
  ~StripeUpdate() = default;
};

class Engine::Pass {
 public:
  // inputs: the landed files that the update reads.
  Pass(const Engine& engine, Sequence first, Sequence last, std::span<const Mapping* const> inputs,
       const StripeUpdate& update)
      : engine_(engine), first_(first), last_(last), inputs_(inputs), update_(update) {}

  // All given stripes that have not taken the last number, on the engine's pool.
  Result<void> run(const std::vector<std::uint32_t>& stripes);

 private:
  [[nodiscard]] bool serve_guarded(std::span<const Mapping* const> unguarded, std::uint32_t slot,
                                   const std::vector<std::uint32_t>& stripes);
  void serve(std::uint32_t slot, const std::vector<std::uint32_t>& stripes);
  void take(std::uint32_t slot, SlotHeader& header, float* const* fresh, std::uint32_t stripe) const;
  void place(const StripeArrays& arrays, const float* const* fresh, std::uint32_t count) const;

  const Engine& engine_;
  const Sequence first_;
  const Sequence last_;
  const std::span<const Mapping* const> inputs_;
  const StripeUpdate& update_;
  std::atomic<std::size_t> next_block_{0};
  std::atomic<bool> unreadable_{false};
};

}  // namespace gradfs
