// How gradients and assignments change the stripes.
#include <cstring>

#include "coproc/descent/kernels.h"
#include "coproc/descent/stripe_pass.h"

namespace gradfs {
namespace {

// A gradient with a number, and what the rule makes of its hyperparameters.
struct NumberedGradient {
  Sequence number;
  const Gradient* gradient = nullptr;
  std::vector<char> takes;             // by tensor: whether it takes this gradient
  std::vector<gradfs_hyper> hypers;    // by tensor that does
  std::vector<KernelScalars> scalars;  // the same, rounded
};

struct GradientUpdate final : StripeUpdate {
  Kernel kernel = nullptr;
  std::uint32_t array_bits = 0;
  bool flushes = true;
  std::vector<NumberedGradient> gradients;                  // in the order of their numbers
  std::vector<std::unique_ptr<float[]>>* copies = nullptr;  // by slot

  [[nodiscard]] std::uint32_t arrays() const override { return array_bits; }
  [[nodiscard]] bool flushes_subnormals() const override { return flushes; }

  // When all hyperparameters are known.
  void round_hypers(Optimizer optimizer, std::uint32_t states) {
    array_bits = 1;
    for (NumberedGradient& one : gradients) {
      one.scalars.resize(one.hypers.size());
      for (std::size_t tensor = 0; tensor < one.hypers.size(); ++tensor) {
        if (one.takes[tensor] == 0) continue;
        one.scalars[tensor] = scalars_of(optimizer, one.hypers[tensor]);
        for (std::uint32_t state = 0; state < states; ++state) {
          if (writes_state(optimizer, one.scalars[tensor], state)) array_bits |= 2U << state;
        }
      }
    }
  }

  [[nodiscard]] bool compute(std::uint32_t slot, const Stripe& stripe, Sequence taken,
                             const float* const* now, float* const* fresh) const override {
    const float* const* from = now;
    for (const NumberedGradient& one : gradients) {
      if (one.number <= taken || one.takes[stripe.tensor] == 0) continue;
      KernelSpan span;
      span.n = stripe.count;
      span.grad = aligned_gradient(*one.gradient, stripe, (*copies)[slot].get());
      span.param = from[0];
      span.new_param = fresh[0];
      for (std::uint32_t i = 0; i < kControlStates; ++i) {
        span.state[i] = from[i + 1];
        span.new_state[i] = (array_bits >> (i + 1) & 1) != 0 ? fresh[i + 1] : nullptr;
      }
      kernel(span, one.scalars[stripe.tensor]);
      from = fresh;
    }
    return from == fresh;
  }
};

struct AssignUpdate final : StripeUpdate {
  const Assignment* assignment = nullptr;

  [[nodiscard]] std::uint32_t first_array() const { return assignment->is_optimizer() ? 1 : 0; }
  [[nodiscard]] std::uint32_t arrays() const override {
    return ((1U << assignment->arrays()) - 1) << first_array();
  }
  [[nodiscard]] bool flushes_subnormals() const override { return false; }  // a copy is a copy

  [[nodiscard]] bool compute(std::uint32_t, const Stripe& stripe, Sequence, const float* const*,
                             float* const* fresh) const override {
    for (std::uint32_t i = 0; i < assignment->arrays(); ++i) {
      std::memcpy(fresh[first_array() + i], assignment->data(stripe.tensor, i) + stripe.first * sizeof(float),
                  stripe.count * sizeof(float));
    }
    return true;
  }
};

}  // namespace

Result<void> Engine::check_gradient(const DescentConfig& config, const Gradient& gradient) const {
  if (gradient.layout_hash() != layout_->hash())
    return Error(Errc::kInvalid, "the gradient is for another model");
  if (config.optimizer != optimizer()) {
    return Error(Errc::kInvalid, "the configuration is for " + std::string(to_text(config.optimizer)) +
                                     ", but the optimizer's state is that of " +
                                     std::string(to_text(optimizer())));
  }
  return ok();
}

Result<void> Engine::apply_gradient(Sequence number, const DescentConfig& config, const Gradient& gradient) {
  const Gradient* one = &gradient;
  return apply_gradients(number, config, {&one, 1});
}

Result<void> Engine::apply_gradients(Sequence first, const DescentConfig& config,
                                     std::span<const Gradient* const> gradients) {
  while (!gradients.empty() && first <= watermark()) {
    gradients = gradients.subspan(1);
    ++first.value;
  }
  if (gradients.empty()) return ok();
  GRADFS_TRYV(is_done(first));
  if (gradients.size() > kGradientsAtOnce) return Error(Errc::kInvalid, "too many gradients at once");
  const bool has_norms = norms_kernel_of(kernels(), config.optimizer) != nullptr;
  if (has_norms && gradients.size() > 1) {  // norms are of what the number before has left
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      GRADFS_TRYV(apply_gradient(Sequence{first.value + i}, config, *gradients[i]));
    }
    return ok();
  }

  const std::vector<ModelTensor>& tensors = layout_->tensors();
  GradientUpdate update;
  update.kernel = kernel_of(kernels(), config.optimizer);
  update.flushes = config.flushes_subnormals;
  update.copies = &gradient_copies_;
  std::vector<DescentConfig::ForTensor> own;
  own.reserve(tensors.size());
  for (const ModelTensor& tensor : tensors) own.push_back(config.for_tensor(tensor.name));
  std::vector<Outcome> outcomes(gradients.size());
  std::vector<const Mapping*> inputs;
  std::vector<char> taken(tensors.size(), 0);
  bool copies = false;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const Gradient& gradient = *gradients[i];
    GRADFS_TRYV(check_gradient(config, gradient));
    inputs.push_back(&gradient.mapping());
    Outcome& outcome = outcomes[i] = i == 0 ? unchanged() : outcomes[i - 1];
    NumberedGradient& one = update.gradients.emplace_back();
    one.number = Sequence{first.value + i};
    one.gradient = &gradient;
    one.takes.resize(tensors.size());
    one.hypers.resize(tensors.size());
    for (std::uint32_t tensor = 0; tensor < tensors.size(); ++tensor) {
      if (gradient.data(tensor) == nullptr || own[tensor].frozen) continue;
      one.takes[tensor] = taken[tensor] = 1;
      one.hypers[tensor] =
          hyper_of(config, own[tensor], {++outcome.steps[tensor], outcome.version, gradient.scale()});
      copies |= !is_aligned(gradient.data(tensor));
    }
    ++outcome.version;
  }
  for (auto& copy : gradient_copies_) {
    if (copies && !copy) copy = std::make_unique<float[]>(kStripeParameters);
  }
  std::vector<std::uint32_t> stripes;
  for (std::uint32_t i = 0; i < layout_->stripes().size(); ++i) {
    if (taken[layout_->stripes()[i].tensor] != 0) stripes.push_back(i);
  }
  if (has_norms) {
    GRADFS_TRYV(find_trust_ratios(first, config, *gradients[0], stripes, update.gradients[0].hypers));
  }
  update.round_hypers(config.optimizer, optimizer_layout_->state_count());
  const Sequence last = update.gradients.back().number;
  GRADFS_TRYV(Pass(*this, first, last, inputs, update).run(stripes));
  // Each number in turn: what is kept twice, by parity, is never written where it is in force.
  for (std::size_t i = 0; i < outcomes.size(); ++i) finish(update.gradients[i].number, outcomes[i]);
  return ok();
}

Result<void> Engine::apply_assign(Sequence number, const Assignment& assignment) {
  GRADFS_TRY(const bool done, is_done(number));
  if (done) return ok();
  if (assignment.layout_hash() != layout_->hash())
    return Error(Errc::kInvalid, "the file is for another model");
  if (assignment.is_optimizer() && assignment.optimizer() != optimizer()) {
    return Error(Errc::kInvalid, "the file is the state of " + std::string(to_text(*assignment.optimizer())) +
                                     ", but the optimizer is now " + std::string(to_text(optimizer())));
  }
  Outcome outcome = unchanged();
  if (assignment.is_optimizer()) {
    outcome.steps = assignment.steps();
  } else {
    ++outcome.version;
  }
  AssignUpdate update;
  update.assignment = &assignment;
  std::vector<std::uint32_t> stripes(layout_->stripes().size());
  for (std::uint32_t i = 0; i < stripes.size(); ++i) stripes[i] = i;
  const Mapping* input = &assignment.mapping();
  GRADFS_TRYV(Pass(*this, number, number, {&input, 1}, update).run(stripes));
  finish(number, outcome);
  return ok();
}

}  // namespace gradfs
