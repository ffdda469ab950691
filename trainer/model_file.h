// The model as a file: model.safetensors of a model directory, and the headers of gradients that fit it.
//
// A trainer knows gradfs by nothing but files, so it has its own small reader of safetensors headers:
//   file = u64 little-endian header length, JSON header, data; offsets in the header are relative to the
//   data.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fs/base/fd.h"
#include "fs/base/result.h"
#include "trainer/network.h"

namespace gradfs::trainer {

inline constexpr std::uint64_t kHeaderAlignment = 4096;

struct ModelTensor {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::uint64_t offset = 0;  // in the data, in floats
  std::uint64_t count = 0;
};

// The tensors of a model of F32 in the order of its data, which has no holes: a flat buffer of parameters()
// floats.
struct ModelLayout {
  std::vector<ModelTensor> tensors;
  std::uint64_t data_start = 0;  // in the file, in bytes

  [[nodiscard]] std::uint64_t parameters() const noexcept;
};

// header: the JSON without its length. kInvalid, in one line, for what is no safetensors or no F32 model.
Result<ModelLayout> parse_model_header(std::string_view header, std::uint64_t data_start,
                                       std::uint64_t file_bytes);

// The fully connected layers that the tensors make up: NAME.weight [out, in] with NAME.bias [out], in the
// order of the number at the end of NAME (fc1, fc2, ..., as torch's nn.Linear; 0, 2, 4 as its nn.Sequential).
// kInvalid if there are others, or one layer does not fit the next.
Result<std::vector<DenseLayer>> deduce_layers(const ModelLayout& layout);

// A read-only map of model.safetensors, and what its attributes say. Movable; the map is shared with whoever
// changes the model, so its values move.
class ModelFile {
 public:
  static Result<ModelFile> open(const std::string& model_directory);

  [[nodiscard]] const ModelLayout& layout() const noexcept { return layout_; }
  // All parameters, live.
  [[nodiscard]] std::span<const float> parameters() const noexcept;
  // The file's header with its length: all that stands before the data.
  [[nodiscard]] Result<std::string> header() const;
  // What its __metadata__ said when it was opened; "" if nothing.
  [[nodiscard]] std::string metadata(const std::string& key) const;
  // Tells this file from one that was renamed to its name since.
  [[nodiscard]] std::uint64_t inode() const noexcept { return inode_; }
  // user.gradfs.version: what the map contains at least. None if nothing is bound to the model.
  [[nodiscard]] std::optional<std::uint64_t> version() const;
  // The same, from status.json where there are no attributes.
  [[nodiscard]] std::optional<std::uint64_t> version_or_status() const;
  // user.gradfs.optimizer, likewise; "" if nothing says.
  [[nodiscard]] std::string optimizer_or_status() const;

 private:
  ModelFile() = default;

  std::string directory_;
  UniqueFd fd_;
  Mapping map_;
  ModelLayout layout_;
  std::map<std::string, std::string> metadata_;
  std::uint64_t inode_ = 0;
};

// The header of a model's file, with its length, with this __metadata__ instead of its own; padded so that
// the data begin on a multiple of kHeaderAlignment. kInvalid: it is none.
Result<std::string> with_metadata(const std::string& header,
                                  const std::map<std::string, std::string>& metadata);

// What a gradient's __metadata__ says.
struct GradientNote {
  std::string run;
  std::string worker;
  std::uint64_t step = 0;
  std::optional<std::uint64_t> base_version;
  double loss = 0;  // mean over the samples
};

// A header of the same length for every step of a run and worker, so that a slot's can be rewritten in place:
// padded with spaces to a multiple of kHeaderAlignment that leaves room for the largest numbers.
class GradientHeader {
 public:
  GradientHeader(const ModelLayout& layout, std::string run, std::string worker);

  // Bytes of the header with its length: where the data of the gradient starts.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return bytes_ + data_bytes_; }
  [[nodiscard]] std::string render(std::uint64_t step, std::optional<std::uint64_t> base_version,
                                   double loss) const;

 private:
  [[nodiscard]] std::string json(const GradientNote& note) const;

  std::string tensors_;  // JSON of the tensors, without the braces around them
  std::string run_;
  std::string worker_;
  std::uint64_t data_bytes_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace gradfs::trainer
