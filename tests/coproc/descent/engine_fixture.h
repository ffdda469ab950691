// An engine with its files beside the reference.
#pragma once

#include "tests/coproc/descent/reference.h"

namespace gradfs {

inline DescentConfig config_of(Optimizer optimizer) {
  DescentConfig config = default_config(optimizer);
  config.lr = 0.03;
  config.weight_decay = 0.02;
  if (optimizer == Optimizer::kMomentum) config.dampening = 0.25;
  if (optimizer == Optimizer::kRmsprop) config.momentum = 0.8;
  if (optimizer == Optimizer::kAdagrad) {
    config.lr_decay = 0.1;
    config.initial_accumulator_value = 0.5;
  }
  return config;
}

class EngineTest : public ::testing::Test {
 protected:
  void start(Optimizer optimizer, std::uint32_t slots = 2) {
    files = std::make_unique<ModelFiles>(shapes, optimizer, slots);
    reference = std::make_unique<Reference>(all_pieces(shapes, 1));
    reopen();
  }
  void reopen() {
    engine.reset();
    auto opened = files->open(pool);
    ASSERT_TRUE(opened) << opened.error().message();
    engine = std::move(opened.value());
  }
  [[nodiscard]] Sequence next() const { return Sequence(engine->watermark().value + 1); }

  [[nodiscard]] Gradient landed(const std::vector<Piece>& pieces, const Metadata& metadata = {},
                                std::uint64_t alignment = kSafetensorsAlignment) {
    const UniqueFd fd = safetensors_file(pieces, metadata, alignment);
    auto gradient = open_gradient(*files->layout, fd, pool);
    EXPECT_TRUE(gradient) << gradient.error().message();
    return std::move(gradient.value());
  }
  void apply(const DescentConfig& config, const Gradient& gradient) {
    const auto result = engine->apply_gradient(next(), config, gradient);
    ASSERT_TRUE(result) << result.error().message();
  }
  void apply(const DescentConfig& config, const std::vector<Piece>& pieces) {
    apply(config, landed(pieces));
    reference->apply(config, pieces);
  }

  // Parameters, states and steps, of the files.
  void expect_reference() const {
    const Optimizer optimizer = engine->optimizer();
    for (std::uint32_t i = 0; i < reference->tensors.size(); ++i) {
      const Reference::Tensor& tensor = reference->tensors[i];
      EXPECT_TRUE(same_bits(files->parameters(i), tensor.param)) << tensor.name;
      const Floats* states[] = {&tensor.first, &tensor.second};
      for (std::uint32_t s = 0; s < engine->optimizer_layout().state_count(); ++s) {
        EXPECT_TRUE(same_bits(files->state(optimizer, i, s), *states[s])) << tensor.name << " state " << s;
      }
      EXPECT_EQ(engine->step(i), tensor.step) << tensor.name;
      EXPECT_EQ(files->mirrored_step(optimizer, i), static_cast<float>(tensor.step)) << tensor.name;
    }
  }

  std::vector<NamedShape> shapes = small_model();
  ThreadPool pool{3};
  std::unique_ptr<ModelFiles> files;
  std::unique_ptr<Reference> reference;
  std::unique_ptr<Engine> engine;
};

}  // namespace gradfs
