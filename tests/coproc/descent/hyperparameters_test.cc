// What an update gets beside its gradient: groups, the schedule, trust ratios.
#include "coproc/descent/engine.h"

#include "tests/coproc/descent/engine_fixture.h"

namespace gradfs {
namespace {

using HyperparametersTest = EngineTest;

TEST_F(HyperparametersTest, GroupsHaveBetasEpsAndMomentum) {
  for (const Optimizer optimizer : kAllOptimizers) {
    SCOPED_TRACE(to_text(optimizer));
    start(optimizer);
    DescentConfig config = config_of(optimizer);
    config.groups = {{"fc1.*", std::nullopt, std::nullopt, std::nullopt, std::array{0.5, 0.75}, 1e-3, 0.5},
                     {"*.bias", std::nullopt, std::nullopt, std::nullopt, std::array{0.25, 0.875}}};
    apply(config, all_pieces(shapes, 3));
    apply(config, all_pieces(shapes, 4));
    expect_reference();
  }
}

TEST_F(HyperparametersTest, TheScheduleFollowsTheVersion) {
  for (const Optimizer optimizer : kAllOptimizers) {
    SCOPED_TRACE(to_text(optimizer));
    start(optimizer);
    DescentConfig config = config_of(optimizer);
    config.schedule = {Schedule::Kind::kCosine, 2, 6, 1, 0.1, 0.125};
    config.groups = {{"fc1.*", std::nullopt, 0.25, std::nullopt}};
    for (std::uint32_t step = 0; step < 8; ++step) {
      if (step == 3) ASSERT_TRUE(engine->apply_void(next()));  // no version, so no time
      if (step == 4) ASSERT_TRUE(engine->apply_config(next(), config));
      apply(config, all_pieces(shapes, 10 + step));
    }
    expect_reference();
    // The same in one pass over several: each has the time of its own number.
    config.schedule.total = 12;
    std::vector<Gradient> gradients;
    std::vector<const Gradient*> pointers;
    for (std::uint32_t i = 0; i < 3; ++i) {
      gradients.push_back(landed(all_pieces(shapes, 30 + i)));
      reference->apply(config, all_pieces(shapes, 30 + i));
    }
    for (const Gradient& gradient : gradients) pointers.push_back(&gradient);
    ASSERT_TRUE(engine->apply_gradients(next(), config, pointers));
    expect_reference();
    EXPECT_EQ(engine->version(), 11U);
  }
}

TEST_F(HyperparametersTest, RmspropWithoutMomentumLeavesTheBuffer) {
  start(Optimizer::kRmsprop);
  DescentConfig config = config_of(Optimizer::kRmsprop);
  for (std::uint32_t step = 0; step < 6; ++step) {
    config.momentum = step % 2 == 0 ? 0.9 : 0.0;
    // Later only some tensors have none.
    if (step == 3) config.groups = {{"big", std::nullopt, std::nullopt, std::nullopt, {}, {}, 0.5}};
    apply(config, all_pieces(shapes, 2 + step));
    expect_reference();
  }
}

TEST_F(HyperparametersTest, TrustRatiosDoNotDependOnThreads) {
  shapes.push_back({"huge", {150, kStripeParameters}});
  for (const std::uint32_t slots : {1, 2, 3}) {
    start(Optimizer::kLamb, slots);
    for (std::uint32_t step = 0; step < 3; ++step) {
      apply(config_of(Optimizer::kLamb), all_pieces(shapes, 20 + step));
    }
    expect_reference();
  }
}

TEST_F(HyperparametersTest, LambOfZerosMovesByTheRateAlone) {
  shapes = {{"zeros", {40}}, {"still", {40}}};
  const std::vector<Piece> model{{shapes[0], Floats(40, 0.0F)}, {shapes[1], Floats(40, 2.0F)}};
  const std::vector<Piece> gradient{{shapes[0], Floats(40, 3.0F)}, {shapes[1], Floats(40, 0.0F)}};
  start(Optimizer::kLamb);
  ASSERT_TRUE(
      engine->apply_assign(Sequence(1), open_assign(*files->layout, safetensors_file(model), pool).value()));
  DescentConfig config = config_of(Optimizer::kLamb);
  config.weight_decay = 0.0;
  apply(config, landed(gradient));
  for (const float value : files->parameters(0)) EXPECT_NEAR(value, -config.lr, 1e-6);
  for (const float value : files->parameters(1)) EXPECT_EQ(value, 2.0F);
}

TEST_F(HyperparametersTest, AGradientThatShrinksInPhaseOneCanBeVoided) {
  start(Optimizer::kLamb);
  const std::string model = content(files->model);
  const UniqueFd fd = safetensors_file(all_pieces(shapes, 2));
  auto gradient = open_gradient(*files->layout, fd, pool);
  ASSERT_TRUE(gradient);
  ASSERT_EQ(::ftruncate(fd.get(), 4096), 0);
  const DescentConfig config = config_of(Optimizer::kLamb);
  EXPECT_EQ(code_of(engine->apply_gradient(Sequence(1), config, gradient.value())), Errc::kIo);
  EXPECT_EQ(content(files->model), model);
  ASSERT_TRUE(engine->apply_void(Sequence(1)));
  apply(config, all_pieces(shapes, 3));
  expect_reference();
}

}  // namespace
}  // namespace gradfs
