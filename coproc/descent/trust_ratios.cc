// The first phase of a rule with norms: sums of squares by stripe, then a trust ratio for each tensor, kept
// in the control file.
#include <algorithm>
#include <optional>

#include "coproc/descent/kernels.h"
#include "coproc/descent/stripe_pass.h"
#include "fs/base/sigbus.h"
#include "fs/base/subnormals.h"

namespace gradfs {
namespace {

constexpr std::size_t kBlock = 32;  // neighbouring stripes that a thread takes at a time

}  // namespace

// Reads parameters, states and gradient of the stripes, and writes nothing of the model.
class Engine::NormPass {
 public:
  struct Squares {
    double sum[2] = {};  // of the parameters, of the update
  };

  NormPass(const Engine& engine, const Gradient& gradient, const DescentConfig& config,
           const std::vector<std::uint32_t>& stripes, std::vector<KernelScalars> scalars)
      : engine_(engine),
        gradient_(gradient),
        kernel_(norms_kernel_of(kernels(), config.optimizer)),
        flushes_(config.flushes_subnormals),
        stripes_(stripes),
        scalars_(std::move(scalars)),
        squares_(stripes.size()) {}

  Result<void> run() {
    const auto slots = std::min<std::size_t>(engine_.pool_.threads(), engine_.header().slot_count);
    engine_.pool_.parallel_for(slots, [&](std::size_t slot, std::size_t) {
      std::optional<FlushSubnormals> flush;  // outside of the guard: what it leaves has no destructors
      if (flushes_) flush.emplace();
      const bool readable = run_guarded(gradient_.mapping().bytes(), [&] { serve(slot); });
      if (!readable) unreadable_.store(true);
    });
    if (unreadable_.load()) return Error(Errc::kIo, "the landed file became shorter while it was applied");
    return ok();
  }

  // After run: of each tensor, its stripes' sums added in their order.
  [[nodiscard]] std::vector<Squares> by_tensor() const {
    std::vector<Squares> out(scalars_.size());
    for (std::size_t i = 0; i < stripes_.size(); ++i) {
      Squares& total = out[engine_.layout_->stripes()[stripes_[i]].tensor];
      for (int k = 0; k < 2; ++k) total.sum[k] += squares_[i].sum[k];
    }
    return out;
  }

 private:
  void serve(std::size_t slot) {
    for (;;) {
      const std::size_t begin = next_block_.fetch_add(1, std::memory_order_relaxed) * kBlock;
      if (begin >= stripes_.size() || unreadable_.load(std::memory_order_relaxed)) return;
      for (std::size_t i = begin; i < std::min(begin + kBlock, stripes_.size()); ++i) {
        const Stripe& stripe = engine_.layout_->stripes()[stripes_[i]];
        const StripeArrays arrays = engine_.arrays_of(stripes_[i]);
        KernelSpan span;
        span.n = stripe.count;
        span.grad = aligned_gradient(gradient_, stripe, engine_.gradient_copies_[slot].get());
        span.param = arrays.array[0];
        for (std::uint32_t state = 0; state < kControlStates; ++state) {
          span.state[state] = arrays.array[state + 1];
        }
        kernel_(span, scalars_[stripe.tensor], squares_[i].sum);
        engine_.hit(FaultPoint::kStripeNormed);
      }
    }
  }

  const Engine& engine_;
  const Gradient& gradient_;
  const NormsKernel kernel_;
  const bool flushes_;
  const std::vector<std::uint32_t>& stripes_;
  const std::vector<KernelScalars> scalars_;  // by tensor
  std::vector<Squares> squares_;              // by place in stripes_
  std::atomic<std::size_t> next_block_{0};
  std::atomic<bool> unreadable_{false};
};

double* Engine::ratios_of(Sequence number) const {
  return reinterpret_cast<double*>(control_.data() + header().ratios_offset) +
         (number.value & 1) * layout_->tensors().size();
}

Result<void> Engine::find_trust_ratios(Sequence number, const DescentConfig& config, const Gradient& gradient,
                                       const std::vector<std::uint32_t>& stripes,
                                       std::vector<gradfs_hyper>& hypers) {
  std::uint64_t& complete = header().ratios_number[number.value & 1];
  double* ratios = ratios_of(number);
  // Stripes may have taken the number already, but only after its ratios were complete.
  if (load_acquire(complete) != number.value) {
    std::vector<KernelScalars> scalars(hypers.size());
    for (const std::uint32_t stripe : stripes) {
      const std::uint32_t tensor = layout_->stripes()[stripe].tensor;
      if (layout_->stripes()[stripe].first == 0) scalars[tensor] = scalars_of(config.optimizer, hypers[tensor]);
    }
    NormPass pass(*this, gradient, config, stripes, std::move(scalars));
    GRADFS_TRYV(pass.run());
    const std::vector<NormPass::Squares> squares = pass.by_tensor();
    for (std::size_t tensor = 0; tensor < hypers.size(); ++tensor) {
      ratios[tensor] = trust_ratio_of(squares[tensor].sum[0], squares[tensor].sum[1]);
    }
    hit(FaultPoint::kRatiosWritten);
    store_in_order(complete, number.value);
    hit(FaultPoint::kRatiosNumbered);
  }
  for (std::size_t tensor = 0; tensor < hypers.size(); ++tensor) hypers[tensor].trust_ratio = ratios[tensor];
  return ok();
}

}  // namespace gradfs
