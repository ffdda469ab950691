// The descent engine: applies numbers of a binding's sequence to a model in shared memory, exactly once each,
// whatever is killed when.
//
// Files (all in a tmpfs, preallocated): the model, its optimizer state, and the control file (control.h),
// which holds the watermark, a number for each stripe, step counts and scratch slots. Nobody else may write
// them: hold an exclusive lock of the image directory while an Engine exists.
//
// A rule with norms (LAMB) takes its number in two phases: norms by stripe, which only reads; then, with the
// trust ratios in the control file, the stripes as any other rule does.
//
// Life: format_control once, then Engine::open at every start, which repairs what a killed process left; then
// the caller applies every number above watermark() in order. A number that was interrupted is applied again
// by the same call with the same arguments: only stripes that have not taken it do. A number at or below the
// watermark is ok at once.
//
// Threads: one thread at a time calls apply_*; watermark(), version(), optimizer() and layout() may be called
// from any thread at any time. The pool must outlive the engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "coproc/descent/config.h"
#include "coproc/descent/control.h"
#include "coproc/descent/gradient.h"
#include "coproc/descent/layout.h"
#include "fs/base/fd.h"
#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/base/thread_pool.h"

namespace gradfs {

// What a control file says, without an engine: the worker chooses the optimizer's file by it at start.
struct ControlState {
  Sequence watermark;                     // the last number that is applied completely; 0 is none
  std::uint64_t version = 0;              // gradients and model assigns applied
  Optimizer optimizer = Optimizer::kSgd;  // whose state the optimizer's file must hold
};

struct ControlOptions {
  Optimizer optimizer = Optimizer::kSgd;
  std::uint32_t thread_slots = 1;  // threads that may apply at once; 1 .. kControlSlotsMax
  Sequence watermark;              // numbers up to it count as applied
  std::uint64_t version = 0;
};

// Makes fd (O_RDWR, tmpfs) a fresh control file for this model: allocated first, the magic written last.
Result<void> format_control(int fd, const ModelLayout& model, const ControlOptions& options);
// kCorrupt: not a control file, or of another version of the format.
Result<ControlState> read_control(int fd);

struct EngineFiles {
  UniqueFd model;      // O_RDWR
  UniqueFd optimizer;  // O_RDWR; made by OptimizerLayout::initialise
  UniqueFd control;    // O_RDWR; made by format_control
};

// More of them at once gain little, and the first would wait for the last.
inline constexpr std::size_t kGradientsAtOnce = 8;

// Where a test may kill the process.
enum class FaultPoint : std::uint8_t {
  kStripeBegin,
  kComputed,
  kFull,
  kHalfInPlace,
  kInPlace,
  kNumbered,
  kEmptied,  // of each stripe
  kStripesDone,
  kBuffersWritten,
  kWatermarkMoved,
  kMirrored,  // of each number
  kRepairing,
  kRepaired,      // of each slot left full
  kStripeNormed,  // of each stripe, of a rule with norms
  kRatiosWritten,
  kRatiosNumbered,  // of each number, of a rule with norms
};
using FaultHook = std::function<void(FaultPoint)>;

class Engine {
 public:
  // Maps the files and repairs the stripes that were being updated when the last process ended. kCorrupt: the
  // files do not belong together. hook: for tests; called on the pool's threads.
  static Result<std::unique_ptr<Engine>> open(EngineFiles files, ThreadPool& pool, FaultHook hook = nullptr);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The next number is watermark() + 1; a later one is kInvalid. Errors of all four: kIo means that the input
  // could not be read to its end (its file shrank). Nothing is left half done, but stripes may have taken the
  // number: then the binding has to stop. If none has, apply_void is allowed, and it is the judge of that.
  // kInvalid: the arguments do not fit this model; no stripe took the number.

  // One step of the configured optimizer. Tensors that the gradient lacks, and frozen ones, are left
  // untouched: no decay, no step. config.optimizer must be optimizer().
  Result<void> apply_gradient(Sequence number, const DescentConfig& config, const Gradient& gradient);
  // The numbers first, first + 1, ... , a gradient each, in one pass over the model: a stripe takes them all,
  // in order, while it is in the cache. The bits are those of one after the other, and so is what a crash
  // leaves: a successor may group them in another way. At most kGradientsAtOnce. On kIo any of them may be
  // the one.
  Result<void> apply_gradients(Sequence first, const DescentConfig& config,
                               std::span<const Gradient* const> gradients);
  // Overwrites all parameters (version + 1; optimizer state stays), or all optimizer state and steps.
  Result<void> apply_assign(Sequence number, const Assignment& assignment);
  // A configuration from this number on. Where config.optimizer equals optimizer(), this only moves the
  // watermark and optimizer_file is not looked at (it may be invalid). Where it differs, optimizer_file must
  // be a file made by OptimizerLayout::initialise for the new one; it becomes the optimizer's file. A switch
  // between rules with the same states (momentum and nesterov; adam and adamw) keeps states and steps; any
  // other starts with zeros and at step 0, as a bias correction for steps that the state never saw would be
  // wrong. The old file is not changed.
  Result<void> apply_config(Sequence number, const DescentConfig& config, UniqueFd optimizer_file = {});
  // Uses up a number without effect. kBusy: a stripe has taken it; it can only be finished.
  Result<void> apply_void(Sequence number);

  [[nodiscard]] Sequence watermark() const noexcept;
  [[nodiscard]] std::uint64_t version() const noexcept;
  [[nodiscard]] Optimizer optimizer() const noexcept;
  [[nodiscard]] const ModelLayout& layout() const noexcept { return *layout_; }
  // Updates that a tensor has taken. Applier's thread only.
  [[nodiscard]] std::uint64_t step(std::uint32_t tensor) const;
  // The optimizer's file as of now. Applier's thread only.
  [[nodiscard]] const OptimizerLayout& optimizer_layout() const noexcept { return *optimizer_layout_; }

 private:
  struct StripeArrays;
  struct Outcome;
  class Pass;
  class NormPass;

  Engine(ThreadPool& pool, FaultHook hook) : pool_(pool), hook_(std::move(hook)) {}
  Result<void> map(const EngineFiles& files);
  Result<void> check_control() const;
  Result<void> recover();  // puts into place what slots still hold
  // True: the number is done already. kInvalid: it is not the next.
  Result<bool> is_done(Sequence number) const;
  Result<void> adopt_optimizer(Optimizer optimizer, const UniqueFd& file, Outcome& outcome);
  [[nodiscard]] StripeArrays arrays_of(std::uint64_t stripe) const;
  [[nodiscard]] ControlHeader& header() const;
  [[nodiscard]] SlotHeader& slot_header(std::uint32_t slot) const;
  [[nodiscard]] float* slot_array(std::uint32_t slot, std::uint32_t array) const;
  [[nodiscard]] std::uint64_t& number_of(std::uint64_t stripe) const;
  [[nodiscard]] std::uint64_t* steps_after(Sequence number) const;
  [[nodiscard]] double* ratios_of(Sequence number) const;
  // Phase one of a rule with norms: stripes are those of the tensors that take the number; hypers, by tensor,
  // get their trust ratios. kIo as apply_gradient, and then no stripe has taken the number.
  Result<void> find_trust_ratios(Sequence number, const DescentConfig& config, const Gradient& gradient,
                                 const std::vector<std::uint32_t>& stripes,
                                 std::vector<gradfs_hyper>& hypers);
  [[nodiscard]] Outcome unchanged() const;
  void finish(Sequence number, const Outcome& outcome);
  [[nodiscard]] Result<void> check_gradient(const DescentConfig& config, const Gradient& gradient) const;
  void mirror_steps() const;
  void hit(FaultPoint point) const {
    if (hook_) hook_(point);
  }

  ThreadPool& pool_;
  FaultHook hook_;
  std::unique_ptr<ModelLayout> layout_;
  std::unique_ptr<OptimizerLayout> optimizer_layout_;
  Mapping model_;
  Mapping state_;
  Mapping control_;
  std::vector<std::unique_ptr<float[]>>
      gradient_copies_;  // one a slot, where landed bytes cannot be used as they are
};

}  // namespace gradfs
