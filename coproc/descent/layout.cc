#include "coproc/descent/layout.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "fs/base/fd.h"

namespace gradfs {
namespace {

class Fnv {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) value_ = (value_ ^ static_cast<std::uint8_t>(c)) * 0x100000001B3ULL;
  }
  void add(std::uint64_t number) {
    char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(number >> (8 * i));
    add(std::string_view(bytes, sizeof bytes));
  }
  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xCBF29CE484222325ULL;
};

}  // namespace

Result<ModelLayout> ModelLayout::from_header(const SafetensorsHeader& header) {
  ModelLayout out;
  if (header.data_start % kSafetensorsAlignment != 0) {
    return Error(Errc::kInvalid, "the model's data must start at a multiple of 4096 bytes, not at " +
                                     std::to_string(header.data_start));
  }
  Fnv hash;
  for (const TensorEntry& entry : header.tensors) {
    if (entry.dtype != Dtype::kF32) {
      return Error(Errc::kInvalid, "tensor " + entry.name + " is " + std::string(to_text(entry.dtype)) +
                                       "; a model's tensors must be F32");
    }
    ModelTensor tensor{entry.name, entry.shape, entry.count(), header.data_start + entry.begin,
                       out.parameters_};
    out.parameters_ += tensor.count;
    out.by_name_.emplace(entry.name, static_cast<std::uint32_t>(out.tensors_.size()));
    hash.add(entry.name.size());
    hash.add(entry.name);
    hash.add(entry.shape.size());
    for (const std::uint64_t dimension : entry.shape) hash.add(dimension);
    hash.add(tensor.file_offset);
    out.tensors_.push_back(std::move(tensor));
  }
  if (out.parameters_ == 0) return Error(Errc::kInvalid, "the model has no parameters");
  hash.add(kStripeParameters);
  out.hash_ = hash.value();
  out.file_bytes_ = header.data_start + header.data_bytes;
  out.make_stripes();
  return out;
}

void ModelLayout::make_stripes() {
  for (std::uint32_t tensor = 0; tensor < tensors_.size(); ++tensor) {
    for (std::uint64_t first = 0; first < tensors_[tensor].count; first += kStripeParameters) {
      const std::uint64_t count = std::min(kStripeParameters, tensors_[tensor].count - first);
      stripes_.push_back({tensor, static_cast<std::uint32_t>(count), first});
    }
  }
}

Result<ModelLayout> ModelLayout::read(int fd) {
  GRADFS_TRY(const SafetensorsHeader header, read_safetensors(fd));
  return from_header(header);
}

std::optional<std::uint32_t> ModelLayout::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

Result<OptimizerLayout> OptimizerLayout::make(const ModelLayout& model, Optimizer optimizer) {
  OptimizerLayout out;
  out.optimizer_ = optimizer;
  const gradfs_rule& rule = builtin_rule(optimizer);
  while (out.state_count_ < GRADFS_STATES_MAX && rule.state_names[out.state_count_] != nullptr)
    ++out.state_count_;
  for (std::uint32_t state = 0; state < out.state_count_; ++state) {
    for (const ModelTensor& tensor : model.tensors()) {
      out.entries_.push_back({tensor.name + "." + rule.state_names[state], Dtype::kF32, tensor.shape, 0, 0});
    }
  }
  for (const ModelTensor& tensor : model.tensors()) {
    out.entries_.push_back({tensor.name + ".step", Dtype::kF32, {}, 0, 0});
  }
  const Metadata metadata{{"format", "gradfs"}, {"optimizer", std::string(to_text(optimizer))}};
  GRADFS_TRY(out.header_, format_safetensors(out.entries_, metadata));
  // The entries get their offsets from the header as a reader would see them.
  std::uint64_t position = 0;
  for (TensorEntry& entry : out.entries_) {
    GRADFS_TRY(const std::uint64_t count, element_count(entry.shape));
    entry.begin = position;
    position = entry.end = position + 4 * count;
  }
  const std::size_t tensors = model.tensors().size();
  out.state_offsets_.resize(tensors * out.state_count_);
  for (std::uint32_t state = 0; state < out.state_count_; ++state) {
    for (std::size_t tensor = 0; tensor < tensors; ++tensor) {
      out.state_offsets_[tensor * out.state_count_ + state] =
          out.header_.size() + out.entries_[state * tensors + tensor].begin;
    }
  }
  out.steps_offset_ = out.header_.size() + out.entries_[out.state_count_ * tensors].begin;
  out.file_bytes_ = out.header_.size() + position;
  return out;
}

Result<void> OptimizerLayout::initialise(int fd) const {
  if (::ftruncate(fd, 0) != 0) return errno_error("ftruncate");
  GRADFS_TRYV(preallocate(fd, file_bytes_));
  return write_fully_at(fd, std::as_bytes(std::span(header_)), 0);
}

Result<void> preallocate(int fd, std::uint64_t bytes) {
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return errno_error("ftruncate");
  int error = 0;
  do {
    error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  } while (error == EINTR);
  if (error != 0) return errno_error("fallocate", error);
  return ok();
}

}  // namespace gradfs
