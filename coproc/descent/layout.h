// Where parameters and optimizer state lie in their files, and how they are cut into stripes. Immutable after
// construction: share freely between threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coproc/descent/config.h"
#include "coproc/descent/safetensors.h"
#include "coproc/gradfs_coproc.h"
#include "fs/base/result.h"

namespace gradfs {

// Parameters in a stripe, at most. Small enough that a stripe's parameters, states and gradient, and its
// slot, stay in the first level cache while it is updated; part of the layout of control files.
inline constexpr std::uint64_t kStripeParameters = 1024;

struct ModelTensor {
  std::string name;
  Shape shape;
  std::uint64_t count = 0;            // elements
  std::uint64_t file_offset = 0;      // bytes, in the model's file
  std::uint64_t first_parameter = 0;  // of all tensors before it
};

// A range of one tensor: the unit of progress and of restoring after a crash.
struct Stripe {
  std::uint32_t tensor = 0;
  std::uint32_t count = 0;  // 1 .. kStripeParameters
  std::uint64_t first = 0;  // element in the tensor
};

class ModelLayout {
 public:
  // Only F32 tensors; at least one parameter; the data on a multiple of 4096 (as format_safetensors makes
  // it).
  static Result<ModelLayout> from_header(const SafetensorsHeader& header);
  static Result<ModelLayout> read(int fd);  // from_header(read_safetensors(fd))

  [[nodiscard]] const std::vector<ModelTensor>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const std::vector<Stripe>& stripes() const noexcept { return stripes_; }
  [[nodiscard]] std::optional<std::uint32_t> find(std::string_view name) const;
  [[nodiscard]] std::uint64_t parameters() const noexcept { return parameters_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return file_bytes_; }
  // Names, shapes, offsets and stripes in 64 bits: a control file belongs to one layout.
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }

 private:
  void make_stripes();

  std::vector<ModelTensor> tensors_;
  std::vector<Stripe> stripes_;
  std::unordered_map<std::string, std::uint32_t> by_name_;
  std::uint64_t parameters_ = 0;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t hash_ = 0;
};

// The optimizer's file: for each tensor NAME.step (F32, shape []) and the rule's states (NAME.exp_avg, ...)
// with the tensor's shape. All states come first, then all steps, so that states begin on a page.
class OptimizerLayout {
 public:
  static Result<OptimizerLayout> make(const ModelLayout& model, Optimizer optimizer);

  [[nodiscard]] Optimizer optimizer() const noexcept { return optimizer_; }
  [[nodiscard]] std::uint32_t state_count() const noexcept { return state_count_; }
  // State `state` of tensor `tensor`: byte offset in the file.
  [[nodiscard]] std::uint64_t state_offset(std::uint32_t tensor, std::uint32_t state) const {
    return state_offsets_[std::size_t{tensor} * state_count_ + state];
  }
  [[nodiscard]] std::uint64_t step_offset(std::uint32_t tensor) const { return steps_offset_ + 4 * tensor; }
  [[nodiscard]] const std::string& header() const noexcept { return header_; }  // the file's first bytes
  [[nodiscard]] const std::vector<TensorEntry>& entries() const noexcept { return entries_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return file_bytes_; }

  // Makes fd (O_RDWR, tmpfs) a fresh optimizer file: size and blocks first (kNoSpace if there is no room),
  // zeros, then the header. What the file held is lost.
  [[nodiscard]] Result<void> initialise(int fd) const;

 private:
  Optimizer optimizer_ = Optimizer::kSgd;
  std::uint32_t state_count_ = 0;
  std::uint64_t steps_offset_ = 0;
  std::uint64_t file_bytes_ = 0;
  std::vector<std::uint64_t> state_offsets_;
  std::vector<TensorEntry> entries_;
  std::string header_;
};

// The built-in rule of an optimizer, with the fastest kernel that this processor has.
const gradfs_rule& builtin_rule(Optimizer optimizer) noexcept;

// ftruncate to bytes, then fallocate: stores into a map of it cannot run out of memory later.
Result<void> preallocate(int fd, std::uint64_t bytes);

}  // namespace gradfs
