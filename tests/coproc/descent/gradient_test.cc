#include "coproc/descent/gradient.h"

#include <limits>

#include "tests/coproc/descent/model_files.h"

namespace gradfs {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class GradientTest : public ::testing::Test {
 protected:
  void expect_refused(const std::vector<Piece>& pieces, Errc code, const std::string& why,
                      const Metadata& metadata = {}) {
    expect_refused(safetensors_file(pieces, metadata), code, why);
  }
  void expect_refused(const UniqueFd& fd, Errc code, const std::string& why) {
    const auto gradient = open_gradient(*files.layout, fd, pool);
    ASSERT_FALSE(gradient) << why;
    EXPECT_EQ(gradient.error().code, code) << gradient.error().message();
    EXPECT_NE(gradient.error().detail.find(why), std::string::npos) << gradient.error().detail;
    EXPECT_EQ(gradient.error().detail.find('\n'), std::string::npos);
  }

  std::vector<NamedShape> shapes = small_model();
  ModelFiles files{shapes, Optimizer::kSgd};
  ThreadPool pool{2};
  std::vector<Piece> pieces = all_pieces(shapes, 2);
};

TEST_F(GradientTest, Accepts) {
  const UniqueFd fd = safetensors_file({pieces[3], pieces[0]}, {{"format", "pt"},
                                                                {"op", "grad"},
                                                                {"run", "r"},
                                                                {"worker", "w0"},
                                                                {"step", "7"},
                                                                {"base_version", "18446744073709551615"},
                                                                {"weight", "32"},
                                                                {"loss", "1.5e-3"},
                                                                {"loss_scale", "1024"}});
  const auto gradient = open_gradient(*files.layout, fd, pool);
  ASSERT_TRUE(gradient) << gradient.error().message();
  const Gradient& g = gradient.value();
  EXPECT_EQ(g.tensors_present(), 2U);
  EXPECT_EQ(g.data(1), nullptr);
  EXPECT_EQ(std::memcmp(g.data(0), pieces[0].values.data(), 60), 0);
  EXPECT_EQ(g.scale(), 1.0F / 1024);
  EXPECT_EQ(g.metadata().run, "r");
  EXPECT_EQ(g.metadata().worker, "w0");
  EXPECT_EQ(g.metadata().step, 7U);
  EXPECT_EQ(g.metadata().base_version, UINT64_MAX);
  EXPECT_EQ(g.metadata().weight, 32.0);
  EXPECT_EQ(g.metadata().loss, 1.5e-3);
}

TEST_F(GradientTest, ALossThatIsNotFiniteIsNone) {
  for (const char* loss : {"nan", "inf", "-inf", "1e999"}) {
    const auto metadata = parse_gradient_metadata({{"loss", loss}});
    ASSERT_TRUE(metadata) << loss;
    EXPECT_FALSE(metadata.value().loss) << loss;
  }
}

TEST_F(GradientTest, RefusesTensors) {
  expect_refused(std::vector<Piece>{}, Errc::kInvalid, "no tensors");
  expect_refused({{{"nobody", {2}}, {1, 2}}}, Errc::kInvalid, "the model has no tensor nobody");
  expect_refused({pieces[1], {{"fc1.weight", {5, 3}}, Floats(15)}}, Errc::kInvalid,
                 "fc1.weight has shape [5, 3]");
  expect_refused({{{"fc1.weight", {15}}, Floats(15)}}, Errc::kInvalid, "fc1.weight has shape");
  expect_refused({{{"scalar", {1}}, Floats(1)}}, Errc::kInvalid, "the model's is []");
  for (const Dtype dtype : {Dtype::kBF16, Dtype::kF16, Dtype::kF64, Dtype::kI32}) {
    expect_refused({{{"fc1.bias", {7}}, Floats(14), dtype}}, Errc::kInvalid, "it must be F32");
  }
  expect_refused(memory_file(), Errc::kInvalid, "");
  const UniqueFd cut = safetensors_file(pieces);
  set_content(cut, content(cut).substr(0, 5000));
  expect_refused(cut, Errc::kInvalid, "");
}

TEST_F(GradientTest, RefusesWhatIsNotFinite) {
  for (const float bad : {kNan, -kNan, kInf, -kInf}) {
    for (const std::size_t where : {0U, 1500U, 2564U}) {
      auto some = pieces;
      some[2].values[where] = bad;
      expect_refused(some, Errc::kNotFinite, "element " + std::to_string(where) + " of big");
      expect_refused(safetensors_file(some, {{"run", "x"}}, 1), Errc::kNotFinite, "of big");
    }
  }
  auto small = pieces;
  small[3].values[0] = kNan;
  expect_refused(small, Errc::kNotFinite, "element 0 of scalar");
}

TEST_F(GradientTest, RefusesWhatOverflowsWhenScaled) {
  auto some = pieces;
  some[0].values[4] = 1e30F;
  EXPECT_TRUE(open_gradient(*files.layout, safetensors_file(some), pool));
  EXPECT_TRUE(open_gradient(*files.layout, safetensors_file(some, {{"loss_scale", "1e-8"}}), pool));
  expect_refused(some, Errc::kNotFinite, "element 4 of fc1.weight", {{"loss_scale", "1e-9"}});
}

TEST_F(GradientTest, RefusesMetadata) {
  const std::pair<const char*, const char*> bad[] = {
      {"op", "assign"},        {"op", ""},          {"op", "GRAD"},       {"step", "-1"},
      {"step", "1.5"},         {"step", ""},        {"step", " 1"},       {"step", "18446744073709551616"},
      {"base_version", "abc"}, {"weight", "0"},     {"weight", "-2"},     {"weight", "nan"},
      {"weight", "inf"},       {"weight", "3kg"},   {"loss", "low"},      {"loss", ""},
      {"loss_scale", "0"},     {"loss_scale", "x"}, {"loss_scale", "-1"}, {"loss_scale", "inf"},
      {"loss_scale", "1e999"}};
  for (const auto& [key, value] : bad) {
    expect_refused(pieces, Errc::kInvalid, std::string("__metadata__ ") + key, {{key, value}});
  }
  for (const char* key : {"run", "worker"}) {
    expect_refused(pieces, Errc::kInvalid, key, {{key, std::string(256, 'x')}});
    EXPECT_TRUE(parse_gradient_metadata({{key, std::string(255, 'x')}}));
  }
}

TEST_F(GradientTest, AssignNeedsExactlyTheModel) {
  const auto refusal = [&](const std::vector<Piece>& given) {
    return code_of(open_assign(*files.layout, safetensors_file(given), pool));
  };
  EXPECT_EQ(refusal(pieces), Errc::kOk);
  EXPECT_EQ(refusal({pieces.begin(), pieces.end() - 1}), Errc::kInvalid);
  EXPECT_EQ(refusal({}), Errc::kInvalid);
  auto more = pieces;
  more.push_back({{"more", {1}}, {1}});
  EXPECT_EQ(refusal(more), Errc::kInvalid);
  auto other = pieces;
  other[0].tensor.shape = {15};
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  other = pieces;
  other[1].dtype = Dtype::kBF16;
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  other = pieces;
  other[4].values[1023] = kInf;
  EXPECT_EQ(refusal(other), Errc::kNotFinite);
}

TEST_F(GradientTest, OptimizerAssignNeedsExactlyItsTensors) {
  const OptimizerLayout adam = OptimizerLayout::make(*files.layout, Optimizer::kAdam).value();
  std::vector<Piece> state;
  for (const TensorEntry& entry : adam.entries()) {
    state.push_back({{entry.name, entry.shape}, Floats(elements(entry.shape), 4.0F)});
  }
  const auto refusal = [&](const std::vector<Piece>& given) {
    return code_of(open_optimizer_assign(*files.layout, adam, safetensors_file(given), pool));
  };
  EXPECT_EQ(refusal(state), Errc::kOk);
  EXPECT_EQ(refusal({state.begin() + 1, state.end()}), Errc::kInvalid);
  auto other = state;
  other.push_back({{"more", {1}}, {1}});
  EXPECT_EQ(refusal(other), Errc::kInvalid);
  for (const float step : {-1.0F, 1.5F, kNan, kInf, 1e20F}) {
    other = state;
    other.back().values[0] = step;
    EXPECT_EQ(refusal(other), Errc::kInvalid) << step;
  }
  other = state;
  other[0].values[3] = kNan;
  EXPECT_EQ(refusal(other), Errc::kNotFinite);
  other = state;
  other[0].tensor.shape = {15};
  EXPECT_EQ(refusal(other), Errc::kInvalid);
}

// A client shrinks the file after it was checked.
class ShrunkFileTest : public GradientTest {
 protected:
  // Data of 16 pages behind a header of one.
  ShrunkFileTest() : GradientTest() {
    shapes = {{"huge", {16 * kStripeParameters}}};
    files = ModelFiles(shapes, Optimizer::kAdam);
    landed = safetensors_file(all_pieces(shapes, 2));
    bytes = content(landed);
  }
  void shrink(std::uint64_t pages) const {
    ASSERT_EQ(::ftruncate(landed.get(), static_cast<off_t>(4096 * pages)), 0);
  }

  const DescentConfig config = default_config(Optimizer::kAdam);
  UniqueFd landed;
  std::string bytes;
};

TEST_F(ShrunkFileTest, NothingTakenIsVoided) {
  const auto engine = files.open(pool).value();
  const Gradient gradient = open_gradient(*files.layout, landed, pool).value();
  const std::string model = content(files.model);
  const std::string state = content(files.states[Optimizer::kAdam]);
  for (const std::uint64_t pages : {1U, 0U}) {
    shrink(pages);
    EXPECT_EQ(code_of(engine->apply_gradient(Sequence(1), config, gradient)), Errc::kIo);
  }
  EXPECT_EQ(content(files.model), model);
  EXPECT_EQ(content(files.states[Optimizer::kAdam]), state);
  EXPECT_EQ(engine->watermark(), Sequence(0));
  EXPECT_TRUE(engine->apply_void(Sequence(1)));
  EXPECT_EQ(engine->version(), 0U);

  set_content(landed, bytes);
  EXPECT_TRUE(engine->apply_gradient(Sequence(2), config, gradient));
  EXPECT_EQ(engine->version(), 1U);
}

TEST_F(ShrunkFileTest, WhatWasTakenInPartIsFinished) {
  const Floats before = files.parameters(0);
  ModelFiles whole(shapes, Optimizer::kAdam);
  const auto undisturbed = whole.open(pool).value();
  const Gradient gradient = open_gradient(*files.layout, landed, pool).value();
  ASSERT_TRUE(undisturbed->apply_gradient(Sequence(1), config, gradient));

  auto engine = files.open(pool).value();
  shrink(1 + 8);
  EXPECT_EQ(code_of(engine->apply_gradient(Sequence(1), config, gradient)), Errc::kIo);
  EXPECT_EQ(engine->watermark(), Sequence(0));
  EXPECT_EQ(code_of(engine->apply_void(Sequence(1))), Errc::kBusy);
  // Each stripe has the new values or the old ones.
  const Floats now = files.parameters(0);
  const Floats after = whole.parameters(0);
  for (std::size_t stripe = 0; stripe < 16; ++stripe) {
    const std::size_t at = stripe * kStripeParameters;
    const Floats& wanted = stripe < 8 ? after : before;
    EXPECT_EQ(std::memcmp(&now[at], &wanted[at], kStripeParameters * sizeof(float)), 0) << stripe;
  }

  engine = nullptr;
  engine = files.open(pool).value();
  EXPECT_EQ(code_of(engine->apply_void(Sequence(1))), Errc::kBusy);
  set_content(landed, bytes);
  EXPECT_TRUE(engine->apply_gradient(Sequence(1), config, gradient));
  EXPECT_EQ(content(files.model), content(whole.model));
  EXPECT_EQ(content(files.states[Optimizer::kAdam]), content(whole.states[Optimizer::kAdam]));
}

TEST_F(ShrunkFileTest, AnAssign) {
  const auto engine = files.open(pool).value();
  const Assignment assignment = open_assign(*files.layout, landed, pool).value();
  const std::string model = content(files.model);
  shrink(1);
  EXPECT_EQ(code_of(engine->apply_assign(Sequence(1), assignment)), Errc::kIo);
  EXPECT_EQ(content(files.model), model);
  EXPECT_TRUE(engine->apply_void(Sequence(1)));
}

TEST_F(ShrunkFileTest, AKeptMapServesTheNextGradient) {
  Gradient gradient = open_gradient(*files.layout, landed, pool).value();
  auto next = all_pieces(shapes, 3);
  next[0].values[9] = kNan;
  const UniqueFd second = safetensors_file(next);
  set_content(landed, content(second));
  auto refused = open_gradient(*files.layout, landed, pool, gradient.take_map().mapping);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kNotFinite);
  set_content(landed, bytes);
  gradient = open_gradient(*files.layout, landed, pool).value();
  const auto* map = gradient.mapping().data();
  gradient = open_gradient(*files.layout, landed, pool, gradient.take_map().mapping).value();
  EXPECT_EQ(gradient.mapping().data(), map);
}

// finish() says yes only where the look covered this gradient's values, and all of them were finite.
TEST_F(ShrunkFileTest, AnEarlyCheckKnowsOnlyWhatItLookedAt) {
  const auto look = [&](const std::string& next) {
    LandedMap kept = open_gradient(*files.layout, landed, pool).value().take_map();
    set_content(landed, next);
    EarlyCheck early(kept, pool);
    auto gradient = open_gradient_unchecked(*files.layout, landed, kept.mapping);
    const bool known = gradient && early.finish(gradient.value());
    set_content(landed, bytes);
    return known;
  };
  EXPECT_TRUE(look(bytes));
  auto bad = all_pieces(shapes, 3);
  bad[0].values[9] = kNan;
  EXPECT_FALSE(look(content(safetensors_file(bad))));
  // Another header length; another scale; a file cut off; one that is no safetensors file.
  EXPECT_FALSE(look(content(safetensors_file(all_pieces(shapes, 3), {{"worker", std::string(600, 'w')}}))));
  EXPECT_FALSE(look(content(safetensors_file(all_pieces(shapes, 3), {{"loss_scale", "1024"}}))));
  EXPECT_FALSE(look(bytes.substr(0, bytes.size() / 2)));
  EXPECT_FALSE(look("nothing"));
  LandedMap nothing;
  EarlyCheck early(nothing, pool);
  EXPECT_FALSE(early.finish(open_gradient(*files.layout, landed, pool).value()));
}

}  // namespace
}  // namespace gradfs
