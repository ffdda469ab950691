// What the engine's tests share: files in memory, deterministic values, and a model with its three files.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "coproc/descent/engine.h"

namespace gradfs {

using Floats = std::vector<float>;

struct NamedShape {
  std::string name;
  Shape shape;
};

inline std::uint64_t elements(const Shape& shape) { return element_count(shape).value(); }

// Odd sizes, a scalar, an exact stripe, and one tensor of more than two stripes.
inline std::vector<NamedShape> small_model() {
  return {{"fc1.weight", {3, 5}},
          {"fc1.bias", {7}},
          {"big", {2 * kStripeParameters + 517}},
          {"scalar", {}},
          {"stripe", {kStripeParameters}}};
}

inline Floats random_floats(std::uint64_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats out(count);
  for (float& value : out) value = normal(random);
  return out;
}

inline UniqueFd memory_file() {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_TRUE(fd);
  return fd;
}

inline std::string content(const UniqueFd& fd) {
  struct stat status{};
  EXPECT_EQ(::fstat(fd.get(), &status), 0);
  std::string out(static_cast<std::size_t>(status.st_size), '\0');
  EXPECT_TRUE(read_fully_at(fd.get(), std::as_writable_bytes(std::span(out)), 0));
  return out;
}

inline void set_content(const UniqueFd& fd, const std::string& bytes) {
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes.size())), 0);
  EXPECT_TRUE(write_fully_at(fd.get(), std::as_bytes(std::span(bytes)), 0));
}

struct Piece {
  NamedShape tensor;
  Floats values;
  Dtype dtype = Dtype::kF32;
};

// alignment 1: the data starts wherever the header ends.
inline UniqueFd safetensors_file(const std::vector<Piece>& pieces, const Metadata& metadata = {},
                                 std::uint64_t alignment = kSafetensorsAlignment) {
  std::vector<TensorEntry> entries;
  std::string data;
  for (const Piece& piece : pieces) {
    entries.push_back({piece.tensor.name, piece.dtype, piece.tensor.shape, 0, 0});
    data.append(reinterpret_cast<const char*>(piece.values.data()),
                elements(piece.tensor.shape) * dtype_bytes(piece.dtype));
  }
  UniqueFd fd = memory_file();
  set_content(fd, format_safetensors(entries, metadata, alignment).value() + data);
  return fd;
}

// Every tensor of a model with values of a seed.
inline std::vector<Piece> all_pieces(const std::vector<NamedShape>& model, std::uint32_t seed) {
  std::vector<Piece> out;
  out.reserve(model.size());
  for (const NamedShape& tensor : model) {
    out.push_back({tensor, random_floats(elements(tensor.shape), seed * 1000 + out.size())});
  }
  return out;
}

// A valid file that replaces the state of an optimizer.
inline UniqueFd state_file(const ModelLayout& model, Optimizer optimizer, std::uint32_t seed) {
  const OptimizerLayout layout = OptimizerLayout::make(model, optimizer).value();
  std::vector<Piece> pieces;
  for (const TensorEntry& entry : layout.entries()) {
    Floats values = random_floats(elements(entry.shape), seed * 1000 + pieces.size());
    for (float& value : values) value = std::fabs(value);
    if (entry.name.ends_with(".step")) values = {static_cast<float>(3 + pieces.size())};
    pieces.push_back({{entry.name, entry.shape}, values});
  }
  return safetensors_file(pieces);
}

// A model's files, shared with every process that is forked.
struct ModelFiles {
  explicit ModelFiles(const std::vector<NamedShape>& shapes, Optimizer optimizer, std::uint32_t slots = 2)
      : model(safetensors_file(all_pieces(shapes, 1))), control(memory_file()) {
    layout = std::make_unique<ModelLayout>(ModelLayout::read(model.get()).value());
    for (const Optimizer one : kAllOptimizers) states[one] = memory_file();
    initialise(optimizer);
    EXPECT_TRUE(format_control(control.get(), *layout, {optimizer, slots, {}, 0}));
  }

  void initialise(Optimizer optimizer) const {
    const OptimizerLayout fresh = OptimizerLayout::make(*layout, optimizer).value();
    EXPECT_TRUE(fresh.initialise(states.at(optimizer).get()));
  }

  [[nodiscard]] UniqueFd state_of(Optimizer optimizer) const {
    return states.at(optimizer).duplicate().value();
  }

  // With the optimizer's file that the control file names.
  [[nodiscard]] Result<std::unique_ptr<Engine>> open(ThreadPool& pool, FaultHook hook = nullptr) const {
    GRADFS_TRY(const ControlState state, read_control(control.get()));
    EngineFiles files{model.duplicate().value(), state_of(state.optimizer), control.duplicate().value()};
    return Engine::open(std::move(files), pool, std::move(hook));
  }

  [[nodiscard]] Floats parameters(std::uint32_t tensor) const {
    return floats(model, layout->tensors()[tensor].file_offset, layout->tensors()[tensor].count);
  }
  [[nodiscard]] Floats state(Optimizer optimizer, std::uint32_t tensor, std::uint32_t index) const {
    const OptimizerLayout made = OptimizerLayout::make(*layout, optimizer).value();
    return floats(states.at(optimizer), made.state_offset(tensor, index), layout->tensors()[tensor].count);
  }
  [[nodiscard]] float mirrored_step(Optimizer optimizer, std::uint32_t tensor) const {
    const OptimizerLayout made = OptimizerLayout::make(*layout, optimizer).value();
    return floats(states.at(optimizer), made.step_offset(tensor), 1)[0];
  }

  static Floats floats(const UniqueFd& fd, std::uint64_t offset, std::uint64_t count) {
    Floats out(count);
    EXPECT_TRUE(read_fully_at(fd.get(), std::as_writable_bytes(std::span(out)), offset));
    return out;
  }

  UniqueFd model;
  UniqueFd control;
  std::map<Optimizer, UniqueFd> states;
  std::unique_ptr<ModelLayout> layout;
};

// kOk for a success.
template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc::kOk : result.error().code;
}

inline bool same_bits(const Floats& a, const Floats& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace gradfs
