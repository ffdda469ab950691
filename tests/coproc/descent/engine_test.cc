#include "coproc/descent/engine.h"

#include "tests/coproc/descent/engine_fixture.h"

namespace gradfs {
namespace {

TEST_F(EngineTest, EveryOptimizerMatchesTheReference) {
  for (const Optimizer optimizer : kAllOptimizers) {
    for (const double decay : {0.0, 0.02}) {
      SCOPED_TRACE(to_text(optimizer));
      start(optimizer);
      DescentConfig config = config_of(optimizer);
      config.weight_decay = decay;
      for (std::uint32_t step = 0; step < 6; ++step) {
        apply(config, all_pieces(shapes, 10 + step));
        if (step == 2) reopen();
        expect_reference();
      }
      EXPECT_EQ(engine->version(), 6U);
    }
  }
}

TEST_F(EngineTest, ManyStripesOnManyThreads) {
  shapes.push_back({"huge", {150, kStripeParameters}});
  start(Optimizer::kAdam, 3);
  for (std::uint32_t step = 0; step < 3; ++step) {
    apply(config_of(Optimizer::kAdam), all_pieces(shapes, 20 + step));
  }
  expect_reference();
}

TEST_F(EngineTest, MissingTensorsTakeNoStepAndNoDecay) {
  for (const Optimizer optimizer : kAllOptimizers) {
    SCOPED_TRACE(to_text(optimizer));
    start(optimizer);
    const auto all = all_pieces(shapes, 2);
    apply(config_of(optimizer), {all[1], all[2]});
    apply(config_of(optimizer), all);
    apply(config_of(optimizer), {all[4], all[0]});
    expect_reference();
    EXPECT_EQ(engine->step(0), 2U);
    EXPECT_EQ(engine->step(3), 1U);
    EXPECT_EQ(engine->version(), 3U);
  }
}

TEST_F(EngineTest, GroupsScaleAndFreeze) {
  for (const Optimizer optimizer : kAllOptimizers) {
    SCOPED_TRACE(to_text(optimizer));
    start(optimizer);
    DescentConfig config = config_of(optimizer);
    config.groups = {{"fc1.*", std::nullopt, 0.25, std::nullopt},
                     {"*.bias", 0.0, std::nullopt, std::nullopt},
                     {"big", std::nullopt, std::nullopt, true}};
    const Floats before = files->parameters(2);
    apply(config, all_pieces(shapes, 3));
    apply(config, all_pieces(shapes, 4));
    EXPECT_TRUE(same_bits(files->parameters(2), before));
    EXPECT_EQ(engine->step(2), 0U);
    config.groups.pop_back();
    apply(config, all_pieces(shapes, 5));
    expect_reference();
  }
}

TEST_F(EngineTest, MisalignedGradients) {
  for (const Optimizer optimizer : {Optimizer::kAdamw, Optimizer::kLamb}) {
    int misaligned = 0;
    start(optimizer);
    for (std::uint32_t pad = 0; pad < 4; ++pad) {
      const auto pieces = all_pieces(shapes, 6 + pad);
      const Gradient gradient = landed(pieces, {{"run", std::string(pad, 'x')}}, 1);
      misaligned += reinterpret_cast<std::uintptr_t>(gradient.data(0)) % 4 != 0 ? 1 : 0;
      apply(config_of(optimizer), gradient);
      reference->apply(config_of(optimizer), pieces);
    }
    EXPECT_EQ(misaligned, 3);
    expect_reference();
  }
}

TEST_F(EngineTest, LossScaleDivides) {
  for (const char* scale : {"1024", "3000", "0.7"}) {
    start(Optimizer::kNesterov);
    const auto pieces = all_pieces(shapes, 7);
    const DescentConfig config = config_of(Optimizer::kNesterov);
    apply(config, landed(pieces, {{"loss_scale", scale}}));
    reference->apply(config, pieces, std::strtod(scale, nullptr));
    expect_reference();
  }
}

// Whole, partial, misaligned and scaled ones; frozen tensors; in groups of every size.
TEST_F(EngineTest, SeveralGradientsInOnePassHaveTheSameBits) {
  for (const Optimizer optimizer : kAllOptimizers) {
    for (std::size_t count = 1; count <= kGradientsAtOnce; ++count) {
      SCOPED_TRACE(std::string(to_text(optimizer)) + ", " + std::to_string(count));
      start(optimizer);
      DescentConfig config = config_of(optimizer);
      DescentGroup& frozen = config.groups.emplace_back();
      frozen.match = "*.bias";
      frozen.frozen = true;
      std::vector<Gradient> gradients;
      std::vector<const Gradient*> pointers;
      for (std::uint32_t i = 0; i < count; ++i) {
        auto pieces = all_pieces(shapes, 20 + i);
        if (i % 3 == 1) pieces.erase(pieces.begin() + 2);
        const double scale = i % 2 == 0 ? 1 : 4;
        gradients.push_back(landed(pieces, {{"loss_scale", std::to_string(scale)}}, i % 4 == 2 ? 1 : 4096));
        reference->apply(config, pieces, scale);
      }
      for (const Gradient& gradient : gradients) pointers.push_back(&gradient);
      const auto result = engine->apply_gradients(Sequence(1), config, pointers);
      ASSERT_TRUE(result) << result.error().message();
      expect_reference();
      EXPECT_EQ(engine->watermark().value, count);
      EXPECT_EQ(engine->version(), count);
      // What is done is skipped, and what is not the next is refused.
      EXPECT_TRUE(engine->apply_gradients(Sequence(1), config, pointers));
      EXPECT_EQ(code_of(engine->apply_gradients(Sequence(count + 2), config, pointers)), Errc::kInvalid);
      expect_reference();
    }
  }
}

// An average that gets no more gradients: 0.9 times the smallest float is rounded to the smallest.
TEST_F(EngineTest, SubnormalNumbersCountAsZeroUnlessTheProfileKeepsThem) {
  for (const bool flushes : {true, false}) {
    start(Optimizer::kMomentum);
    DescentConfig config = default_config(Optimizer::kMomentum);
    config.flushes_subnormals = flushes;
    std::vector<Piece> pieces = all_pieces(shapes, 3);
    for (Piece& piece : pieces) std::fill(piece.values.begin(), piece.values.end(), 1.3e-38F);
    for (int step = 0; step < 2; ++step) {
      apply(config, landed(pieces));
      for (Piece& piece : pieces) std::fill(piece.values.begin(), piece.values.end(), 0.0F);
    }
    const float expected = flushes ? 0.0F : 1.3e-38F * 0.9F;
    for (std::uint32_t tensor = 0; tensor < shapes.size(); ++tensor) {
      for (const float value : files->state(Optimizer::kMomentum, tensor, 0)) ASSERT_EQ(value, expected);
    }
  }
  volatile float smallest = 1e-40F;  // nothing of this is left behind on the threads
  pool.parallel_for(64, [&](std::size_t, std::size_t) { EXPECT_GT(smallest * 1.0F, 0.0F); });
  EXPECT_GT(smallest * 1.0F, 0.0F);
}

TEST_F(EngineTest, ANumberIsTakenOnce) {
  start(Optimizer::kAdam);
  const DescentConfig config = config_of(Optimizer::kAdam);
  const Gradient gradient = landed(all_pieces(shapes, 8));
  apply(config, gradient);
  apply(config, gradient);
  const std::string model = content(files->model);
  const std::string state = content(files->states[Optimizer::kAdam]);
  const std::string control = content(files->control);
  for (const std::uint64_t again : {1U, 2U}) {
    EXPECT_TRUE(engine->apply_gradient(Sequence(again), config, gradient));
    EXPECT_TRUE(engine->apply_void(Sequence(again)));
    EXPECT_TRUE(engine->apply_config(Sequence(again), config_of(Optimizer::kSgd)));
  }
  for (const std::uint64_t later : {4U, 100U}) {
    EXPECT_EQ(code_of(engine->apply_gradient(Sequence(later), config, gradient)), Errc::kInvalid);
    EXPECT_EQ(code_of(engine->apply_void(Sequence(later))), Errc::kInvalid);
    EXPECT_EQ(code_of(engine->apply_config(Sequence(later), config)), Errc::kInvalid);
  }
  EXPECT_EQ(code_of(engine->apply_gradient(Sequence(3), config_of(Optimizer::kAdamw), gradient)),
            Errc::kInvalid);
  EXPECT_EQ(content(files->model), model);
  EXPECT_EQ(content(files->states[Optimizer::kAdam]), state);
  EXPECT_EQ(content(files->control), control);
}

TEST_F(EngineTest, Assigns) {
  start(Optimizer::kAdam);
  const DescentConfig config = config_of(Optimizer::kAdam);
  apply(config, all_pieces(shapes, 2));

  auto pieces = all_pieces(shapes, 3);
  std::swap(pieces[0], pieces[3]);  // any order
  const UniqueFd model = safetensors_file(pieces, {}, 1);
  ASSERT_TRUE(engine->apply_assign(Sequence(2), open_assign(*files->layout, model, pool).value()));
  for (const Piece& piece : pieces) {
    reference->tensors[*files->layout->find(piece.tensor.name)].param = piece.values;
  }
  expect_reference();
  EXPECT_EQ(engine->version(), 2U);

  const UniqueFd state = state_file(*files->layout, Optimizer::kAdam, 4);
  const auto assignment = open_optimizer_assign(*files->layout, engine->optimizer_layout(), state, pool);
  ASSERT_TRUE(assignment) << assignment.error().message();
  ASSERT_TRUE(engine->apply_assign(Sequence(3), assignment.value()));
  const OptimizerLayout& layout = engine->optimizer_layout();
  const std::string bytes = content(state);
  ASSERT_EQ(layout.file_bytes() % 4096, bytes.size() % 4096);
  const std::size_t data = layout.header().size();
  EXPECT_EQ(content(files->states[Optimizer::kAdam]).substr(data),
            bytes.substr(bytes.size() - (layout.file_bytes() - data)));
  EXPECT_EQ(engine->version(), 2U);
  for (std::uint32_t i = 0; i < shapes.size(); ++i) {
    reference->tensors[i].first = files->state(Optimizer::kAdam, i, 0);
    reference->tensors[i].second = files->state(Optimizer::kAdam, i, 1);
    reference->tensors[i].step = assignment.value().steps()[i];
    EXPECT_GE(engine->step(i), 3U);
  }
  apply(config, all_pieces(shapes, 5));
  reopen();
  expect_reference();
  EXPECT_EQ(engine->version(), 3U);
}

TEST_F(EngineTest, AStateIsAssignedToItsOwnOptimizer) {
  start(Optimizer::kAdam);
  const OptimizerLayout other = OptimizerLayout::make(*files->layout, Optimizer::kMomentum).value();
  const UniqueFd state = state_file(*files->layout, Optimizer::kMomentum, 4);
  const auto assignment = open_optimizer_assign(*files->layout, other, state, pool);
  ASSERT_TRUE(assignment);
  EXPECT_EQ(code_of(engine->apply_assign(Sequence(1), assignment.value())), Errc::kInvalid);
  EXPECT_EQ(engine->watermark(), Sequence(0));
}

TEST_F(EngineTest, SwitchOfOptimizer) {
  start(Optimizer::kSgd);
  apply(config_of(Optimizer::kSgd), all_pieces(shapes, 2));
  const auto switch_to = [&](Optimizer optimizer) {
    const std::string old = content(files->states[engine->optimizer()]);
    const Optimizer before = engine->optimizer();
    files->initialise(optimizer);
    const auto result = engine->apply_config(next(), config_of(optimizer), files->state_of(optimizer));
    ASSERT_TRUE(result) << result.error().message();
    EXPECT_EQ(engine->optimizer(), optimizer);
    EXPECT_EQ(content(files->states[before]), old);
    expect_reference();
  };
  const auto forget = [&] {
    for (auto& tensor : reference->tensors) {
      tensor.step = 0;
      tensor.first = tensor.second = Floats(tensor.param.size(), 0.0F);
    }
  };
  EXPECT_EQ(code_of(engine->apply_config(next(), config_of(Optimizer::kAdam))), Errc::kInvalid);
  EXPECT_EQ(engine->apply_config(next(), config_of(Optimizer::kAdam), files->state_of(Optimizer::kSgd))
                .error()
                .code,
            Errc::kCorrupt);
  EXPECT_EQ(engine->optimizer(), Optimizer::kSgd);
  forget();
  switch_to(Optimizer::kAdam);
  apply(config_of(Optimizer::kAdam), all_pieces(shapes, 3));
  switch_to(Optimizer::kAdamw);  // keeps
  apply(config_of(Optimizer::kAdamw), all_pieces(shapes, 4));
  reopen();
  expect_reference();
  switch_to(Optimizer::kLamb);  // keeps
  apply(config_of(Optimizer::kLamb), all_pieces(shapes, 7));
  forget();
  switch_to(Optimizer::kLion);
  apply(config_of(Optimizer::kLion), all_pieces(shapes, 8));
  forget();
  switch_to(Optimizer::kNesterov);
  apply(config_of(Optimizer::kNesterov), all_pieces(shapes, 5));
  switch_to(Optimizer::kMomentum);  // keeps
  apply(config_of(Optimizer::kMomentum), all_pieces(shapes, 6));
  ASSERT_TRUE(engine->apply_config(next(), config_of(Optimizer::kMomentum)));  // the same: no file
  expect_reference();
  EXPECT_EQ(engine->watermark(), Sequence(14));
  EXPECT_EQ(engine->version(), 7U);
}

TEST_F(EngineTest, VoidUsesANumberUp) {
  start(Optimizer::kMomentum);
  ASSERT_TRUE(engine->apply_void(Sequence(1)));
  apply(config_of(Optimizer::kMomentum), all_pieces(shapes, 2));
  ASSERT_TRUE(engine->apply_void(Sequence(3)));
  apply(config_of(Optimizer::kMomentum), all_pieces(shapes, 3));
  expect_reference();
  EXPECT_EQ(engine->watermark(), Sequence(4));
  EXPECT_EQ(engine->version(), 2U);
}

TEST_F(EngineTest, StartsAtAGivenWatermark) {
  start(Optimizer::kSgd);
  engine.reset();
  ASSERT_TRUE(format_control(files->control.get(), *files->layout, {Optimizer::kSgd, 1, Sequence(41), 17}));
  reopen();
  EXPECT_EQ(engine->version(), 17U);
  apply(config_of(Optimizer::kSgd), all_pieces(shapes, 2));
  expect_reference();
  EXPECT_EQ(engine->watermark(), Sequence(42));
  EXPECT_EQ(engine->version(), 18U);
}

TEST_F(EngineTest, RefusesFilesThatDoNotBelongTogether) {
  start(Optimizer::kAdam);
  engine.reset();
  const auto refusal = [&] { return code_of(files->open(pool)); };
  const std::string control = content(files->control);
  ModelFiles other({{"fc1.weight", {5, 3}}}, Optimizer::kAdam);
  for (const std::string& bad :
       {std::string(), std::string(4096, '\0'), control.substr(0, control.size() - 1), control + "x",
        "X" + control.substr(1), content(other.control)}) {
    set_content(files->control, bad);
    EXPECT_EQ(refusal(), Errc::kCorrupt) << bad.size();
  }
  set_content(files->control, control);
  const std::string state = content(files->states[Optimizer::kAdam]);
  set_content(files->states[Optimizer::kAdam], content(other.states[Optimizer::kAdam]));
  EXPECT_EQ(refusal(), Errc::kCorrupt);
  set_content(files->states[Optimizer::kAdam], state);
  EXPECT_EQ(refusal(), Errc::kOk);
  EXPECT_EQ(code_of(format_control(files->control.get(), *files->layout, {Optimizer::kSgd, 0, {}, 0})),
            Errc::kInvalid);
}

}  // namespace
}  // namespace gradfs
