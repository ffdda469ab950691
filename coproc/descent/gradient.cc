#include "coproc/descent/gradient.h"

#include <sys/stat.h>

#include <atomic>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "coproc/descent/kernels.h"
#include "fs/base/sigbus.h"

namespace gradfs {
namespace {

constexpr std::size_t kChunk = 1 << 16;  // elements that one thread checks at a time

// A part of the landed file that has to be finite.
struct Piece {
  const std::string* name = nullptr;
  const std::byte* data = nullptr;
  std::uint64_t count = 0;
};

Error invalid(const std::string& text) { return {Errc::kInvalid, text}; }

Result<std::uint64_t> whole_number(const std::string& key, const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size()) {
    return invalid("__metadata__ " + key + " is '" + text + "'; it must be a whole number");
  }
  return value;
}

Result<double> number(const std::string& key, const std::string& text) {
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || (ec != std::errc() && ec != std::errc::result_out_of_range)) {
    return invalid("__metadata__ " + key + " is '" + text + "'; it must be a number");
  }
  // from_chars leaves the value alone then; this gives infinity, or zero.
  if (ec == std::errc::result_out_of_range) return std::strtod(text.c_str(), nullptr);
  return value;
}

Result<double> positive(const std::string& key, const std::string& text) {
  GRADFS_TRY(const double value, number(key, text));
  if (!std::isfinite(value) || value <= 0) {
    return invalid("__metadata__ " + key + " is '" + text + "'; it must be finite and above 0");
  }
  return value;
}

// Where the first element that is not finite stands; only after all_finite has said that there is one.
Error not_finite(const Piece& piece, float scale) {
  for (std::uint64_t i = 0; i < piece.count; ++i) {
    float value;
    std::memcpy(&value, piece.data + 4 * i, sizeof value);
    if (!std::isfinite(value * scale)) {
      return {Errc::kNotFinite, "element " + std::to_string(i) + " of " + *piece.name + " is not finite"};
    }
  }
  return {Errc::kNotFinite, *piece.name};
}

// The body of a loop over all values of the pieces.
class Scan {
 public:
  static constexpr std::size_t kNone = SIZE_MAX;

  Scan(const std::vector<Piece>& pieces, std::span<const std::byte> range, float scale)
      : pieces_(pieces), range_(range), scale_(scale) {
    for (std::size_t p = 0; p < pieces.size(); ++p) {
      for (std::uint64_t first = 0; first < pieces[p].count; first += kChunk) {
        chunks_.push_back({p, first, std::min<std::uint64_t>(kChunk, pieces[p].count - first)});
      }
    }
  }
  [[nodiscard]] std::size_t size() const { return chunks_.size(); }

  void operator()(std::size_t index, std::size_t) {
    const Chunk& chunk =
        chunks_[chunks_.size() - 1 - index];  // the engine finds the beginning still in the cache
    bool finite = true;
    const bool readable = run_guarded(range_, [&] {
      finite = kernels().all_finite(pieces_[chunk.piece].data + 4 * chunk.first, chunk.count, scale_);
    });
    if (!readable) shrank_ = true;
    if (!finite) {
      std::size_t known = bad_.load();
      while (chunk.piece < known && !bad_.compare_exchange_weak(known, chunk.piece)) {
      }
    }
  }
  // When the loop has ended: the first piece with a value that is not finite, or kNone.
  [[nodiscard]] std::size_t bad() const { return bad_; }
  [[nodiscard]] bool shrank() const { return shrank_; }

 private:
  struct Chunk {
    std::size_t piece;
    std::uint64_t first;
    std::uint64_t count;
  };
  const std::vector<Piece>& pieces_;
  const std::span<const std::byte> range_;
  const float scale_;
  std::vector<Chunk> chunks_;
  std::atomic<std::size_t> bad_{kNone};
  std::atomic<bool> shrank_{false};
};

Result<void> check_finite(const std::vector<Piece>& pieces, const Mapping& mapping, float scale,
                          ThreadPool& pool) {
  const auto range = std::span<const std::byte>(mapping.bytes());
  Scan scan(pieces, range, scale);
  pool.parallel_for(scan.size(), scan);
  bool shrank = scan.shrank();
  if (!shrank && scan.bad() != Scan::kNone) {
    Error error;
    if (run_guarded(range, [&] { error = not_finite(pieces[scan.bad()], scale); })) return error;
    shrank = true;
  }
  if (shrank) return Error(Errc::kIo, "the file became shorter while it was read");
  return ok();
}

struct Landed {
  SafetensorsHeader header;
  Mapping mapping;
};

Result<Landed> map_landed(const UniqueFd& fd) {
  Landed out;
  GRADFS_TRY(out.header, read_safetensors(fd.get()));
  if (out.header.tensors.empty()) return invalid("the file has no tensors");
  GRADFS_TRY(out.mapping, Mapping::map(fd, out.header.data_start + out.header.data_bytes, false, true));
  return out;
}

Result<std::uint32_t> match_tensor(const ModelLayout& model, const TensorEntry& entry) {
  const auto tensor = model.find(entry.name);
  if (!tensor) return invalid("the model has no tensor " + entry.name);
  const ModelTensor& known = model.tensors()[*tensor];
  if (entry.shape != known.shape) {
    return invalid("tensor " + entry.name + " has shape " + to_text(entry.shape) + "; the model's is " +
                   to_text(known.shape));
  }
  if (entry.dtype != Dtype::kF32) {
    return invalid("tensor " + entry.name + " is " + std::string(to_text(entry.dtype)) + "; it must be F32");
  }
  return *tensor;
}

}  // namespace

Result<GradientMetadata> parse_gradient_metadata(const Metadata& metadata) {
  GradientMetadata out;
  for (const auto& [key, text] : metadata) {
    if (key == "run" || key == "worker") {
      if (text.size() > kIdentityTextMax) return invalid("__metadata__ " + key + " is longer than 255 bytes");
      (key == "run" ? out.run : out.worker) = text;
    } else if (key == "step") {
      GRADFS_TRY(out.step, whole_number(key, text));
    } else if (key == "base_version") {
      GRADFS_TRY(out.base_version, whole_number(key, text));
    } else if (key == "weight") {
      GRADFS_TRY(out.weight, positive(key, text));
    } else if (key == "loss_scale") {
      GRADFS_TRY(out.loss_scale, positive(key, text));
    } else if (key == "loss") {
      GRADFS_TRY(const double loss, number(key, text));
      if (std::isfinite(loss)) out.loss = loss;
    } else if (key == "op" && text != "grad") {
      return invalid("__metadata__ op is '" + text + "'; there is: grad");
    }
  }
  return out;
}

Result<Gradient> open_gradient_unchecked(const ModelLayout& model, const UniqueFd& fd, Mapping& kept) {
  GRADFS_TRY(const SafetensorsHeader header, read_safetensors(fd.get()));
  if (header.tensors.empty()) return invalid("the file has no tensors");
  const std::uint64_t bytes = header.data_start + header.data_bytes;
  Gradient out;
  if (kept.size() != bytes) {
    GRADFS_TRY(out.mapping_, Mapping::map(fd, bytes, false, true));
  }
  const std::byte* file = kept.size() == bytes ? kept.data() : out.mapping_.data();
  GRADFS_TRY(out.metadata_, parse_gradient_metadata(header.metadata));
  out.scale_ = static_cast<float>(1.0 / out.metadata_.loss_scale);
  out.layout_hash_ = model.hash();
  out.values_start_ = header.data_start;
  out.data_.resize(model.tensors().size(), nullptr);
  for (const TensorEntry& entry : header.tensors) {
    GRADFS_TRY(const std::uint32_t tensor, match_tensor(model, entry));
    out.data_[tensor] = file + header.data_start + entry.begin;
    ++out.present_;
  }
  if (file == kept.data()) out.mapping_ = std::move(kept);
  return out;
}

Result<void> check_values(const ModelLayout& model, const Gradient& gradient, ThreadPool& pool) {
  std::vector<Piece> pieces;
  for (std::uint32_t tensor = 0; tensor < model.tensors().size(); ++tensor) {
    if (gradient.data(tensor) == nullptr) continue;
    const ModelTensor& known = model.tensors()[tensor];
    pieces.push_back({&known.name, gradient.data(tensor), known.count});
  }
  return check_finite(pieces, gradient.mapping(), gradient.scale(), pool);
}

struct EarlyCheck::Impl {
  Impl(std::span<const std::byte> file, const std::byte* values, float s, ThreadPool& pool)
      : scale(s),
        pieces{{nullptr, values, static_cast<std::uint64_t>(file.data() + file.size() - values) / 4}},
        scan(pieces, file, s),
        loop(pool, scan.size(), scan) {}
  const float scale;
  const std::vector<Piece> pieces;
  Scan scan;
  ThreadPool::Loop loop;
};

EarlyCheck::EarlyCheck(const LandedMap& kept, ThreadPool& pool) {
  if (kept.mapping.size() <= kept.values_start) return;
  impl_ =
      std::make_unique<Impl>(kept.mapping.bytes(), kept.mapping.data() + kept.values_start, kept.scale, pool);
}

EarlyCheck::~EarlyCheck() = default;

bool EarlyCheck::finish(const Gradient& gradient) {
  if (!impl_) return false;
  impl_->loop.finish();
  return !impl_->scan.shrank() && impl_->scan.bad() == Scan::kNone && gradient.scale() == impl_->scale &&
         gradient.mapping().data() + gradient.values_start() == impl_->pieces[0].data;
}

Result<Gradient> open_gradient(const ModelLayout& model, const UniqueFd& fd, ThreadPool& pool, Mapping kept) {
  GRADFS_TRY(Gradient out, open_gradient_unchecked(model, fd, kept));
  GRADFS_TRYV(check_values(model, out, pool));
  return out;
}

Result<Assignment> open_assign(const ModelLayout& model, const UniqueFd& fd, ThreadPool& pool) {
  GRADFS_TRY(Landed landed, map_landed(fd));
  Assignment out;
  out.arrays_ = 1;
  out.layout_hash_ = model.hash();
  out.data_.resize(model.tensors().size(), nullptr);
  std::vector<Piece> pieces;
  for (const TensorEntry& entry : landed.header.tensors) {
    GRADFS_TRY(const std::uint32_t tensor, match_tensor(model, entry));
    out.data_[tensor] = landed.mapping.data() + landed.header.data_start + entry.begin;
    pieces.push_back({&entry.name, out.data_[tensor], entry.count()});
  }
  for (std::size_t tensor = 0; tensor < out.data_.size(); ++tensor) {
    if (out.data_[tensor] == nullptr)
      return invalid("tensor " + model.tensors()[tensor].name + " is missing");
  }
  GRADFS_TRYV(check_finite(pieces, landed.mapping, 1.0F, pool));
  out.mapping_ = std::move(landed.mapping);
  return out;
}

Result<Assignment> open_optimizer_assign(const ModelLayout& model, const OptimizerLayout& optimizer,
                                         const UniqueFd& fd, ThreadPool& pool) {
  GRADFS_TRY(Landed landed, map_landed(fd));
  Assignment out;
  out.optimizer_ = optimizer.optimizer();
  out.arrays_ = optimizer.state_count();
  out.layout_hash_ = model.hash();
  const std::size_t tensors = model.tensors().size();
  out.data_.resize(tensors * std::max<std::size_t>(1, out.arrays_), nullptr);
  out.steps_.resize(tensors, 0);
  std::map<std::string, const TensorEntry*> given;
  for (const TensorEntry& entry : landed.header.tensors) given[entry.name] = &entry;
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < optimizer.entries().size(); ++i) {
    const TensorEntry& wanted = optimizer.entries()[i];
    const auto found = given.find(wanted.name);
    if (found == given.end()) return invalid("tensor " + wanted.name + " is missing");
    const TensorEntry& entry = *found->second;
    if (entry.shape != wanted.shape || entry.dtype != Dtype::kF32) {
      return invalid("tensor " + wanted.name + " must be F32 of shape " + to_text(wanted.shape));
    }
    const std::byte* data = landed.mapping.data() + landed.header.data_start + entry.begin;
    pieces.push_back({&wanted.name, data, entry.count()});
    if (i < tensors * out.arrays_) {
      out.data_[(i % tensors) * out.arrays_ + i / tensors] = data;
      continue;
    }
    float step = 0;
    GRADFS_TRYV(read_fully_at(fd.get(), std::as_writable_bytes(std::span(&step, 1)),
                              landed.header.data_start + entry.begin));
    if (!(step >= 0 && step <= 9e15F && step == std::floor(step)))
      return invalid(wanted.name + " must be a whole number");
    out.steps_[i - tensors * out.arrays_] = static_cast<std::uint64_t>(step);
  }
  if (given.size() != optimizer.entries().size())
    return invalid("the file has tensors that the optimizer has not");
  GRADFS_TRYV(check_finite(pieces, landed.mapping, 1.0F, pool));
  out.mapping_ = std::move(landed.mapping);
  return out;
}

}  // namespace gradfs
