#include "tools/fsctl/model_source.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "coproc/descent/layout.h"
#include "fs/base/clock.h"

namespace gradfs::fsctl {
namespace {

constexpr std::size_t kChunkBytes = 1 << 20;
constexpr std::size_t kLayersMax = 1000;
constexpr std::uint64_t kWidthMax = 1ULL << 31;

class LayersSource final : public ModelSource {
 public:
  Result<void> make(const std::vector<std::uint64_t>& widths, std::uint64_t seed) {
    SeededRandom random(seed);
    std::vector<TensorEntry> entries;
    for (std::size_t layer = 1; layer < widths.size(); ++layer) {
      const std::uint64_t in = widths[layer - 1];
      const std::string name = "fc" + std::to_string(layer);
      entries.push_back({.name = name + ".weight", .shape = {widths[layer], in}});
      entries.push_back({.name = name + ".bias", .shape = {widths[layer]}});
      const auto bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(in)));
      for (int i = 0; i < 2; ++i) fills_.push_back({.seed = random.next_u64(), .bound = bound});
    }
    return lay_out(std::move(entries), {{"format", "gradfs"}});
  }

  [[nodiscard]] Result<void> write(std::size_t index, int fd) const override {
    const TensorEntry& tensor = tensors()[index];
    SeededRandom random(fills_[index].seed);
    std::vector<float> chunk(kChunkBytes / sizeof(float));
    for (std::uint64_t done = 0; done < tensor.count();) {
      const auto count = std::min<std::uint64_t>(chunk.size(), tensor.count() - done);
      for (std::uint64_t i = 0; i < count; ++i) {
        // 24 bits in [-1, 1): exact, so that only the product rounds.
        const auto steps = static_cast<std::int32_t>(random.next_u64() >> 40) - (1 << 23);
        chunk[i] = static_cast<float>(steps) * 0x1p-23F * fills_[index].bound;
      }
      const auto bytes = std::as_bytes(std::span(chunk.data(), count));
      GRADFS_TRYV(write_fully_at(fd, bytes, header().size() + tensor.begin + done * sizeof(float)));
      done += count;
    }
    return ok();
  }

 private:
  struct Fill {
    std::uint64_t seed;
    float bound;
  };
  std::vector<Fill> fills_;
};

class FileSource final : public ModelSource {
 public:
  Result<void> open(const std::string& path) {
    GRADFS_TRY(file_, open_file(path, O_RDONLY));
    auto read = read_safetensors(file_.get());
    if (!read) return Error(read.error().code, path + ": " + read.error().detail);
    const SafetensorsHeader& from = read.value();
    for (const TensorEntry& tensor : from.tensors) {
      if (tensor.dtype != Dtype::kF32) {
        return Error(Errc::kInvalid, path + ": tensor '" + tensor.name + "' is " +
                                         std::string(to_text(tensor.dtype)) +
                                         "; convert it to F32, a model has no other type");
      }
      starts_.push_back(from.data_start + tensor.begin);
    }
    auto laid_out = lay_out(from.tensors, from.metadata);
    if (!laid_out) return Error(laid_out.error().code, path + ": " + laid_out.error().detail);
    return ok();
  }

  [[nodiscard]] Result<void> write(std::size_t index, int fd) const override {
    const TensorEntry& tensor = tensors()[index];
    const std::uint64_t bytes = tensor.end - tensor.begin;
    std::vector<std::byte> chunk(kChunkBytes);
    for (std::uint64_t done = 0; done < bytes;) {
      const auto part = std::span(chunk).first(std::min<std::uint64_t>(chunk.size(), bytes - done));
      GRADFS_TRYV(read_fully_at(file_.get(), part, starts_[index] + done));
      GRADFS_TRYV(write_fully_at(fd, part, header().size() + tensor.begin + done));
      done += part.size();
    }
    return ok();
  }

 private:
  UniqueFd file_;
  std::vector<std::uint64_t> starts_;  // of the tensors' data in file_
};

}  // namespace

Result<void> ModelSource::lay_out(std::vector<TensorEntry> tensors, const Metadata& metadata) {
  GRADFS_TRY(header_, format_safetensors(tensors, metadata));
  std::uint64_t position = 0;
  for (TensorEntry& tensor : tensors) {
    GRADFS_TRY(const std::uint64_t count, element_count(tensor.shape));
    tensor.begin = position;
    position += count * sizeof(float);
    tensor.end = position;
  }
  tensors_ = std::move(tensors);
  parameters_ = position / sizeof(float);
  GRADFS_TRY(const auto parsed, parse_safetensors(std::string_view(header_).substr(8), file_bytes()));
  GRADFS_TRYV(ModelLayout::from_header(parsed));
  return ok();
}

Result<void> ModelSource::write_all(int fd) const {
  GRADFS_TRYV(write_fully_at(fd, std::as_bytes(std::span(header_)), 0));
  for (std::size_t index = 0; index < tensors_.size(); ++index) {
    GRADFS_TRYV(write(index, fd));
  }
  return ok();
}

Result<std::vector<std::uint64_t>> parse_layers(std::string_view text) {
  const Error invalid(Errc::kInvalid, "--layers '" + std::string(text) +
                                          "': write the widths, from input to output, as 784,1024,10");
  std::vector<std::uint64_t> widths;
  for (std::string_view left = text;;) {
    const std::string_view part = left.substr(0, left.find(','));
    std::uint64_t width = 0;
    const auto [end, failure] = std::from_chars(part.data(), part.data() + part.size(), width);
    if (failure != std::errc() || end != part.data() + part.size()) return invalid;
    if (width < 1 || width > kWidthMax || widths.size() > kLayersMax) return invalid;
    widths.push_back(width);
    if (part.size() == left.size()) break;
    left.remove_prefix(part.size() + 1);
  }
  if (widths.size() < 2) return invalid;
  return widths;
}

Result<std::unique_ptr<ModelSource>> layers_source(const std::vector<std::uint64_t>& widths,
                                                   std::uint64_t seed) {
  auto source = std::make_unique<LayersSource>();
  GRADFS_TRYV(source->make(widths, seed));
  return std::unique_ptr<ModelSource>(std::move(source));
}

Result<std::unique_ptr<ModelSource>> file_source(const std::string& path) {
  auto source = std::make_unique<FileSource>();
  GRADFS_TRYV(source->open(path));
  return std::unique_ptr<ModelSource>(std::move(source));
}

}  // namespace gradfs::fsctl
