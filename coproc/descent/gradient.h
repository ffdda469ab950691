// Files that landed: gradients, and assignments of a whole model or optimizer state. Opening one validates it
// completely; what comes back can be applied by the engine.
//
// The bytes stay in the landed file (mapped read-only), so the file must not change until it has been
// applied. A client that shrinks it anyway cannot crash the process: reads are under a SIGBUS guard.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coproc/descent/layout.h"
#include "coproc/descent/safetensors.h"
#include "fs/base/fd.h"
#include "fs/base/result.h"
#include "fs/base/thread_pool.h"

namespace gradfs {

// Lengths of run and worker, in bytes.
inline constexpr std::size_t kIdentityTextMax = 255;

// __metadata__ of a gradient; every key is optional.
struct GradientMetadata {
  std::string run;
  std::string worker;
  std::optional<std::uint64_t> step;
  std::optional<std::uint64_t> base_version;
  std::optional<double> weight;  // finite, above 0; recorded only
  std::optional<double> loss;    // finite; anything else that is a number counts as absent
  double loss_scale = 1.0;       // finite, above 0; the gradient is divided by it
};
// kInvalid names the key. An `op` other than "grad" is refused.
Result<GradientMetadata> parse_gradient_metadata(const Metadata& metadata);

// What is left of a gradient, for the next one in the same file.
struct LandedMap {
  Mapping mapping;
  std::uint64_t values_start = 0;
  float scale = 1.0F;
};

// A validated gradient: its map and where each tensor lies in it. Movable; owns the map.
class Gradient {
 public:
  [[nodiscard]] const GradientMetadata& metadata() const noexcept { return metadata_; }
  // The bytes of a model tensor's gradient (F32, any alignment), or null where the file has none.
  [[nodiscard]] const std::byte* data(std::uint32_t tensor) const { return data_[tensor]; }
  [[nodiscard]] std::uint32_t tensors_present() const noexcept { return present_; }
  // What each element is multiplied by: 1 / loss_scale, rounded once (as torch's GradScaler does).
  [[nodiscard]] float scale() const noexcept { return scale_; }
  [[nodiscard]] const Mapping& mapping() const noexcept { return mapping_; }
  // Where in the file the values begin; they go on to its end.
  [[nodiscard]] std::uint64_t values_start() const noexcept { return values_start_; }
  // Gives the map away, for the next gradient in the same file. Nothing else of this object may be used then.
  [[nodiscard]] LandedMap take_map() noexcept { return {std::move(mapping_), values_start_, scale_}; }
  [[nodiscard]] std::uint64_t layout_hash() const noexcept { return layout_hash_; }

 private:
  friend Result<Gradient> open_gradient_unchecked(const ModelLayout&, const UniqueFd&, Mapping&);
  GradientMetadata metadata_;
  Mapping mapping_;
  std::vector<const std::byte*> data_;
  std::uint32_t present_ = 0;
  std::uint64_t layout_hash_ = 0;
  std::uint64_t values_start_ = 0;
  float scale_ = 1.0F;
};

// kept: the map that take_map() gave for an earlier gradient in this very file (a slot), or nothing.
// fd: the landed file, opened for reading; may be closed afterwards. Every tensor must be one of the model's,
// F32, of the same shape; a subset is fine. kInvalid: format, metadata, name, shape, dtype, no tensors.
// kNotFinite: names the tensor and the element (after scaling). kIo: the file shrank meanwhile. Uses the
// pool; any thread.
Result<Gradient> open_gradient(const ModelLayout& model, const UniqueFd& fd, ThreadPool& pool,
                               Mapping kept = {});
// The same in two steps: all but the values, which costs little, and then every value. No engine may see a
// gradient before its values are checked. kept is taken where it is used and all went well, and left alone
// otherwise.
Result<Gradient> open_gradient_unchecked(const ModelLayout& model, const UniqueFd& fd, Mapping& kept);
Result<void> check_values(const ModelLayout& model, const Gradient& gradient, ThreadPool& pool);

// A look at all values before the header is read, as if the file were laid out as it was before: the pool's
// threads begin at once. The rules of ThreadPool::Loop hold.
class EarlyCheck {
 public:
  // kept: of an earlier gradient in the file; its bytes must stay mapped while this object exists.
  EarlyCheck(const LandedMap& kept, ThreadPool& pool);
  ~EarlyCheck();
  // Takes part, and waits for the end. true: every value of this gradient is finite. false: nobody knows.
  bool finish(const Gradient& gradient);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A validated file that replaces all parameters, or all optimizer state. Movable; owns the map.
class Assignment {
 public:
  [[nodiscard]] bool is_optimizer() const noexcept { return optimizer_.has_value(); }
  [[nodiscard]] std::optional<Optimizer> optimizer() const noexcept { return optimizer_; }
  // Model: array 0 is the parameters. Optimizer: array i is state i. F32, any alignment.
  [[nodiscard]] const std::byte* data(std::uint32_t tensor, std::uint32_t array) const {
    return data_[std::size_t{tensor} * arrays_ + array];
  }
  [[nodiscard]] std::uint32_t arrays() const noexcept { return arrays_; }
  [[nodiscard]] const std::vector<std::uint64_t>& steps() const noexcept {
    return steps_;
  }  // optimizer: a tensor each
  [[nodiscard]] const Mapping& mapping() const noexcept { return mapping_; }
  [[nodiscard]] std::uint64_t layout_hash() const noexcept { return layout_hash_; }

 private:
  friend Result<Assignment> open_assign(const ModelLayout&, const UniqueFd&, ThreadPool&);
  friend Result<Assignment> open_optimizer_assign(const ModelLayout&, const OptimizerLayout&, const UniqueFd&,
                                                  ThreadPool&);
  std::optional<Optimizer> optimizer_;
  Mapping mapping_;
  std::vector<const std::byte*> data_;
  std::vector<std::uint64_t> steps_;
  std::uint32_t arrays_ = 0;
  std::uint64_t layout_hash_ = 0;
};

// A model file with exactly the model's tensors (any order, any data alignment), all finite. Errors as
// open_gradient.
Result<Assignment> open_assign(const ModelLayout& model, const UniqueFd& fd, ThreadPool& pool);
// An optimizer file with exactly the tensors of `optimizer`; steps are whole numbers, states finite.
Result<Assignment> open_optimizer_assign(const ModelLayout& model, const OptimizerLayout& optimizer,
                                         const UniqueFd& fd, ThreadPool& pool);

}  // namespace gradfs
