// Kills the applying process at every point of every kind of number; its successor must end with the bits of
// a run that nobody killed.
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <optional>

#include "tests/coproc/descent/model_files.h"

namespace gradfs {
namespace {

constexpr int kFailed = 3;

// What the files held, and hold at the end.
struct Snapshot {
  std::string model;
  std::string control;
  std::map<Optimizer, std::string> states;
};

// A sequence of numbers: two gradients (one misaligned, one of a subset), an assign of the model and one of
// the state, two changes of the configuration, the second to another optimizer, and four gradients.
class Script {
 public:
  Script(const std::vector<NamedShape>& shapes, Optimizer optimizer, std::size_t threads, std::uint32_t slots)
      : optimizer_(optimizer), threads_(threads), files_(shapes, optimizer, slots) {
    const auto pieces = all_pieces(shapes, 3);
    gradients_[0] = safetensors_file(all_pieces(shapes, 2), {{"run", "xy"}}, 1);
    gradients_[1] = safetensors_file({pieces[2], pieces[0]});
    model_ = safetensors_file(all_pieces(shapes, 4));
    state_ = state_file(*files_.layout, optimizer, 5);
    for (const Optimizer one : kAllOptimizers) files_.initialise(one);
    first_ = save();
  }

  [[nodiscard]] Snapshot save() const {
    Snapshot out{content(files_.model), content(files_.control), {}};
    for (const auto& [optimizer, fd] : files_.states) out.states[optimizer] = content(fd);
    return out;
  }

  void reset() const {
    set_content(files_.model, first_.model);
    set_content(files_.control, first_.control);
    for (const auto& [optimizer, fd] : files_.states) set_content(fd, first_.states.at(optimizer));
  }

  // Model, state and what the control file says; its slots may differ.
  void expect_same(const Snapshot& wanted) const {
    const Snapshot is = save();
    const ControlState state = read_control(files_.control.get()).value();
    EXPECT_TRUE(is.model == wanted.model);
    EXPECT_TRUE(is.states.at(state.optimizer) == wanted.states.at(state.optimizer));
    const ControlHeader* header = reinterpret_cast<const ControlHeader*>(is.control.data());
    EXPECT_TRUE(is.control.substr(0, header->slots_offset) == wanted.control.substr(0, header->slots_offset));
    for (std::uint32_t slot = 0; slot < header->slot_count; ++slot) {
      const auto* words = is.control.data() + header->slots_offset + slot * kSlotBytes;
      EXPECT_EQ(reinterpret_cast<const SlotHeader*>(words)->state, 0U);
    }
  }

  // All numbers above the watermark, as the worker would after a start. together: gradients in one pass, at
  // most.
  Result<void> run(std::uint64_t together = 1, const FaultHook& hook = nullptr) const {
    ThreadPool pool(threads_);
    GRADFS_TRY(const auto engine, files_.open(pool, hook));
    for (std::uint64_t number = engine->watermark().value + 1; number <= kNumbers;) {
      std::uint64_t count = 0;
      while (count < together && is_gradient(number + count)) ++count;
      if (count > 1) {
        GRADFS_TRYV(apply_together(*engine, number, count, pool));
      } else {
        GRADFS_TRYV(apply(*engine, Sequence(number), pool));
      }
      number += std::max<std::uint64_t>(count, 1);
    }
    return ok();
  }

  // In a process of its own, which kills itself at its kill_at-th point. False: it came to the end before.
  [[nodiscard]] bool run_and_kill(std::uint64_t kill_at, std::uint64_t together = 1) const {
    const pid_t child = ::fork();
    if (child == 0) {
      std::atomic<std::uint64_t> points{0};
      const auto result = run(together, [&](FaultPoint) {
        if (++points == kill_at) ::kill(::getpid(), SIGKILL);
      });
      ::_exit(result ? 0 : kFailed);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) {
      EXPECT_EQ(WTERMSIG(status), SIGKILL);
      return true;
    }
    EXPECT_EQ(WEXITSTATUS(status), 0);
    return false;
  }

  void finish_and_compare(const Snapshot& wanted, std::uint64_t together = 1) const {
    const auto result = run(together);
    EXPECT_TRUE(result) << result.error().message();
    expect_same(wanted);
  }

 private:
  static constexpr std::uint64_t kNumbers = 10;

  static bool is_gradient(std::uint64_t number) { return number <= 2 || (number >= 7 && number <= kNumbers); }

  [[nodiscard]] const UniqueFd& gradient_of(std::uint64_t number) const {
    return gradients_[number == 2 || number == 8 ? 1 : 0];
  }

  Result<void> apply_together(Engine& engine, std::uint64_t first, std::uint64_t count,
                              ThreadPool& pool) const {
    std::vector<Gradient> gradients;
    for (std::uint64_t number = first; number < first + count; ++number) {
      GRADFS_TRY(Gradient gradient, open_gradient(*files_.layout, gradient_of(number), pool));
      gradients.push_back(std::move(gradient));
    }
    std::vector<const Gradient*> pointers;
    for (const Gradient& gradient : gradients) pointers.push_back(&gradient);
    const DescentConfig config = default_config(engine.optimizer());
    return engine.apply_gradients(Sequence(first), config, pointers);
  }

  Result<void> apply(Engine& engine, Sequence number, ThreadPool& pool) const {
    const DescentConfig config = default_config(optimizer_);
    switch (number.value) {
      case 1:
      case 2: {
        GRADFS_TRY(const Gradient gradient, open_gradient(*files_.layout, gradient_of(number.value), pool));
        return engine.apply_gradient(number, config, gradient);
      }
      case 3: {
        GRADFS_TRY(const Assignment model, open_assign(*files_.layout, model_, pool));
        return engine.apply_assign(number, model);
      }
      case 4: {
        GRADFS_TRY(const Assignment state,
                   open_optimizer_assign(*files_.layout, engine.optimizer_layout(), state_, pool));
        return engine.apply_assign(number, state);
      }
      case 5:
        return engine.apply_config(number, config);
      case 6: {
        const Optimizer other = other_optimizer();
        files_.initialise(other);
        return engine.apply_config(number, default_config(other), files_.state_of(other));
      }
      default: {
        GRADFS_TRY(const Gradient gradient, open_gradient(*files_.layout, gradient_of(number.value), pool));
        return engine.apply_gradient(number, default_config(engine.optimizer()), gradient);
      }
    }
  }

  // With the same states, and with others; and lamb, whose numbers have two phases.
  [[nodiscard]] Optimizer other_optimizer() const {
    if (optimizer_ == Optimizer::kAdam) return Optimizer::kAdamw;
    if (optimizer_ == Optimizer::kAdamw || optimizer_ == Optimizer::kAdagrad) return Optimizer::kLamb;
    return Optimizer::kAdam;
  }

  Optimizer optimizer_;
  std::size_t threads_;
  ModelFiles files_;
  UniqueFd gradients_[2];
  UniqueFd model_;
  UniqueFd state_;
  Snapshot first_;
};

class EngineCrashTest : public ::testing::TestWithParam<Optimizer> {};

std::string name_of(const ::testing::TestParamInfo<Optimizer>& info) {
  return std::string(to_text(info.param));
}
INSTANTIATE_TEST_SUITE_P(All, EngineCrashTest, ::testing::ValuesIn(kAllOptimizers), name_of);

TEST_P(EngineCrashTest, KilledAtEveryPoint) {
  // A scalar, an odd tensor and one of two stripes.
  const Script script({{"a", {7}}, {"b", {}}, {"c", {kStripeParameters + 3}}}, GetParam(), 1, 1);
  ASSERT_TRUE(script.run());
  const Snapshot wanted = script.save();
  std::uint64_t point = 0;
  bool killed = true;
  while (killed && !HasFailure()) {
    SCOPED_TRACE("point " + std::to_string(++point));
    script.reset();
    killed = script.run_and_kill(point);
    script.finish_and_compare(wanted);
  }
  EXPECT_GT(point, 150U);
}

TEST_P(EngineCrashTest, KilledWithSeveralGradientsInOnePass) {
  const Script script({{"a", {7}}, {"b", {}}, {"c", {kStripeParameters + 3}}}, GetParam(), 1, 1);
  ASSERT_TRUE(script.run());
  const Snapshot wanted = script.save();
  for (const auto& [before, after] : {std::pair{4U, 1U}, {4U, 4U}, {2U, 3U}, {3U, 2U}}) {
    bool killed = true;
    for (std::uint64_t point = 1; killed && !HasFailure(); ++point) {
      SCOPED_TRACE("point " + std::to_string(point) + ", " + std::to_string(before) + " at once, then " +
                   std::to_string(after));
      script.reset();
      killed = script.run_and_kill(point, before);
      script.finish_and_compare(wanted, after);
    }
  }
}

TEST_P(EngineCrashTest, KilledAgainDuringRecovery) {
  const Script script({{"a", {7}}, {"b", {}}, {"c", {kStripeParameters + 3}}}, GetParam(), 1, 1);
  ASSERT_TRUE(script.run());
  const Snapshot wanted = script.save();
  bool killed = true;
  for (std::uint64_t first = 1; killed && !HasFailure(); ++first) {
    // Repairing and Repaired come first, then the points of the number itself.
    for (std::uint64_t second = 1; second <= 3; ++second) {
      SCOPED_TRACE("points " + std::to_string(first) + " and " + std::to_string(second));
      script.reset();
      killed = script.run_and_kill(first);
      if (script.run_and_kill(second)) static_cast<void>(script.run_and_kill(1));
      script.finish_and_compare(wanted);
    }
  }
}

TEST_P(EngineCrashTest, KilledAnywhereInABigModel) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  auto shapes = small_model();
  shapes.push_back({"huge", {100 * kStripeParameters + 9}});
  const Script script(shapes, GetParam(), 4, 3);
  ASSERT_TRUE(script.run());
  const Snapshot wanted = script.save();
  for (int trial = 0; trial < 25 && !HasFailure(); ++trial) {
    script.reset();
    std::string points;
    do {
      const std::uint64_t point = 1 + random() % 2500;
      points += " " + std::to_string(point);
      if (!script.run_and_kill(point, 1 + random() % kGradientsAtOnce)) break;
    } while (random() % 2 == 0);
    SCOPED_TRACE("points" + points);
    script.finish_and_compare(wanted);
  }
}

// What phase one leaves behind binds nobody: no stripe has taken the number.
TEST(LambCrashTest, ANumberWithTrustRatiosAndNoStripeCanBeVoided) {
  const auto shapes = small_model();
  const ModelFiles killed(shapes, Optimizer::kLamb);
  const ModelFiles untouched(shapes, Optimizer::kLamb);
  const UniqueFd gradients[] = {safetensors_file(all_pieces(shapes, 2)),
                                safetensors_file(all_pieces(shapes, 3))};
  const auto apply = [&](const ModelFiles& files, std::uint64_t number,
                         const FaultHook& hook) -> Result<void> {
    ThreadPool pool(1);
    GRADFS_TRY(const auto engine, files.open(pool, hook));
    GRADFS_TRY(const Gradient gradient, open_gradient(*files.layout, gradients[number - 1], pool));
    return engine->apply_gradient(Sequence(number), default_config(Optimizer::kLamb), gradient);
  };
  const pid_t child = ::fork();
  if (child == 0) {
    static_cast<void>(apply(killed, 1, [](FaultPoint point) {
      if (point == FaultPoint::kRatiosNumbered) ::kill(::getpid(), SIGKILL);
    }));
    ::_exit(kFailed);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  for (const ModelFiles* files : {&killed, &untouched}) {
    ThreadPool pool(1);
    const auto engine = files->open(pool);
    ASSERT_TRUE(engine);
    ASSERT_TRUE(engine.value()->apply_void(Sequence(1)));
    ASSERT_TRUE(apply(*files, 2, nullptr));
  }
  EXPECT_TRUE(content(killed.model) == content(untouched.model));
}

}  // namespace
}  // namespace gradfs
