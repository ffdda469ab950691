// Where the first bytes of a model's file come from: a network's layers and a seed, or a safetensors file.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coproc/descent/safetensors.h"
#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::fsctl {

class ModelSource {
 public:
  virtual ~ModelSource() = default;
  // The file's first bytes, a multiple of 4096.
  [[nodiscard]] const std::string& header() const noexcept { return header_; }
  // In the order of the file; begin and end count from the end of the header.
  [[nodiscard]] const std::vector<TensorEntry>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] std::uint64_t parameters() const noexcept { return parameters_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return header_.size() + 4 * parameters_; }

  // Writes tensor `index` to its place in fd.
  [[nodiscard]] virtual Result<void> write(std::size_t index, int fd) const = 0;
  // Header and all tensors.
  [[nodiscard]] Result<void> write_all(int fd) const;

 protected:
  // Lays the tensors out one after the other; kInvalid if that makes no model (only F32, at least one
  // parameter).
  Result<void> lay_out(std::vector<TensorEntry> tensors, const Metadata& metadata);

 private:
  std::vector<TensorEntry> tensors_;
  std::string header_;
  std::uint64_t parameters_ = 0;
};

// "784,1024,10": at least two widths of at least 1.
Result<std::vector<std::uint64_t>> parse_layers(std::string_view text);

// fc1.weight [out, in], fc1.bias [out], fc2.weight, ... with the values of PyTorch's Linear: kaiming-uniform,
// a = sqrt(5), which is U(-1/sqrt(in), 1/sqrt(in)) for both. The same seed gives the same bytes on every
// machine.
Result<std::unique_ptr<ModelSource>> layers_source(const std::vector<std::uint64_t>& widths,
                                                   std::uint64_t seed);

// The tensors of a file, all F32, in its order, and its metadata.
Result<std::unique_ptr<ModelSource>> file_source(const std::string& path);

}  // namespace gradfs::fsctl
