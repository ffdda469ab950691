// One pass of a number over stripes: the crash-safe part of the engine, private to it.
#pragma once

#include <atomic>

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

// What a number leaves behind beside the stripes.
struct Engine::Outcome {
  std::uint64_t version = 0;
  Optimizer optimizer = Optimizer::kSgd;
  std::vector<std::uint64_t> steps;
};

// How a number changes a stripe.
class StripeUpdate {
 public:
  // A bit for each array that gets new values.
  [[nodiscard]] virtual std::uint32_t arrays() const = 0;
  // Writes all of a stripe's new values to `fresh`. May be left at any access to the input as by longjmp.
  virtual void compute(std::uint32_t slot, const Stripe& stripe, const float* const* now,
                       float* const* fresh) const = 0;

 protected:
  ~StripeUpdate() = default;
};

class Engine::Pass {
 public:
  Pass(const Engine& engine, Sequence number, const Mapping& input, const StripeUpdate& update)
      : engine_(engine), number_(number), input_(input), update_(update) {}

  // All given stripes that have not taken the number, on the engine's pool.
  Result<void> run(const std::vector<std::uint32_t>& stripes);

 private:
  void serve(std::uint32_t slot, const std::vector<std::uint32_t>& stripes);
  void take(std::uint32_t slot, SlotHeader& header, float* const* fresh, std::uint32_t stripe) const;
  void place(const StripeArrays& arrays, const float* const* fresh, std::uint32_t count) const;

  const Engine& engine_;
  const Sequence number_;
  const Mapping& input_;
  const StripeUpdate& update_;
  std::atomic<std::size_t> next_block_{0};
  std::atomic<bool> unreadable_{false};
};

}  // namespace gradfs
