#include "coproc/descent/config.h"

#include <gtest/gtest.h>

namespace gradfs {
namespace {

std::string refusal(const std::string& text) {
  const auto config = parse_config(text);
  return config ? "accepted" : config.error().message();
}

TEST(Config, EmptyIsPlainSgd) {
  const auto config = parse_config("");
  ASSERT_TRUE(config);
  EXPECT_EQ(config.value().optimizer, Optimizer::kSgd);
  EXPECT_EQ(config.value().lr, 0.01);
  EXPECT_EQ(config.value().weight_decay, 0.0);
  EXPECT_EQ(config.value().ack, Ack::kApplied);
}

TEST(Config, ReadsEveryKey) {
  const auto config = parse_config(R"(
[optimizer]
name = "adamw"
lr = 1
betas = [0.8, 0.99]
eps = 1e-6
weight_decay = 0.1
profile = "torch1-fma"
[[group]]
match = "*.bias"
weight_decay = 0.0
[[group]]
match = "fc1.*"
lr_scale = 0.5
frozen = true
[policy]
mode = "async"
ack = "committed"
)");
  ASSERT_TRUE(config) << config.error().message();
  const DescentConfig& c = config.value();
  EXPECT_EQ(c.optimizer, Optimizer::kAdamw);
  EXPECT_EQ(c.lr, 1.0);
  EXPECT_EQ(c.beta1, 0.8);
  EXPECT_EQ(c.beta2, 0.99);
  EXPECT_EQ(c.eps, 1e-6);
  EXPECT_EQ(c.ack, Ack::kCommitted);
  EXPECT_FALSE(c.flushes_subnormals);
  EXPECT_TRUE(parse_config("[optimizer]\nprofile = \"fast\"\n").value().flushes_subnormals);
  EXPECT_EQ(c.for_tensor("fc2.weight").weight_decay, 0.1);
  EXPECT_FALSE(c.for_tensor("fc2.weight").frozen);
  EXPECT_EQ(c.for_tensor("fc1.bias").weight_decay, 0.0);
  EXPECT_EQ(c.for_tensor("fc1.bias").lr, 0.5);
  EXPECT_TRUE(c.for_tensor("fc1.bias").frozen);
}

TEST(Config, LastMatchWinsForEachKey) {
  const auto config =
      parse_config("[[group]]\nmatch='*'\nlr_scale=2\nweight_decay=0.5\n[[group]]\nmatch='a*'\nlr_scale=3\n");
  ASSERT_TRUE(config);
  EXPECT_EQ(config.value().for_tensor("b").lr, 0.01 * 2);
  EXPECT_EQ(config.value().for_tensor("a.b.c").lr, 0.01 * 3);
  EXPECT_EQ(config.value().for_tensor("a.b.c").weight_decay, 0.5);
}

constexpr const char* kRefused[] = {"[optimizer]\nlr = nan\n",
                                    "[optimizer]\nlr = inf\n",
                                    "[optimizer]\nlr = \"1\"\n",
                                    "[optimizer]\nlr = true\n",
                                    "[optimizer]\nname = 3\n",
                                    "[optimizer]\nname='adam'\nbetas = [0.9, 1.0]\n",
                                    "[optimizer]\nname='adam'\nbetas = [0.9]\n",
                                    "[optimizer]\nname='adam'\nbetas = 0.9\n",
                                    "[optimizer]\nname='adam'\nbetas = [-0.1, 0.9]\n",
                                    "[optimizer]\nname='adam'\neps = 0\n",
                                    "[optimizer]\nmomentum = 0.9\n",
                                    "[optimizer]\nname='momentum'\nbetas = [0.9, 0.9]\n",
                                    "[optimizer]\nname='nesterov'\ndampening = 0.1\n",
                                    "[optimizer]\nname='nesterov'\nmomentum = 0.0\n",
                                    "[optimizer]\nweight_decay = -0.1\n",
                                    "[optimizer]\nname='momentum'\nmomentum = 1.0\n",
                                    "optimizer = 3\n",
                                    "[[optimizer]]\nlr=1\n",
                                    "[group]\nmatch='a'\n",
                                    "[[group]]\nlr_scale=1\n",
                                    "[[group]]\nmatch=''\n",
                                    "[[group]]\nmatch='a'\nfrozen=1\n",
                                    "[[group]]\nmatch='a'\nlr=1\n",
                                    "[policy]\nmode='sync'\n",
                                    "[policy]\nquorum=3\n",
                                    "[policy]\nack='never'\n",
                                    "[policy]\nack=1\n",
                                    "[keep]\nsnapshots=3\n",
                                    "[optimizer]\nname='adagrad'\nlr_decay = -1\n",
                                    "[optimizer]\nname='adagrad'\ninitial_accumulator_value = -1\n",
                                    "[optimizer]\nname='adagrad'\nbetas = [0.9, 0.9]\n",
                                    "[optimizer]\nname='adam'\nlr_decay = 0.1\n",
                                    "[optimizer]\nname='adam'\nalpha = 0.9\n",
                                    "[optimizer]\nname='rmsprop'\nalpha = 1.0\n",
                                    "[optimizer]\nname='rmsprop'\ndampening = 0.1\n",
                                    "[optimizer]\nname='lamb'\nmomentum = 0.1\n",
                                    "[optimizer]\nname='nesterov'\n[[group]]\nmatch='a'\nmomentum=0.0\n",
                                    "[optimizer]\nname='adam'\n[[group]]\nmatch='a'\nbetas=0.9\n",
                                    "[[group]]\nmatch='a'\nbetas=[0.9, 0.9]\n",
                                    "[[group]]\nmatch='a'\neps=1e-3\n",
                                    "schedule = 3\n",
                                    "[schedule]\nkind=3\n",
                                    "[schedule]\nkind='cosine'\n",
                                    "[schedule]\nkind='linear'\nwarmup=10\ntotal=10\n",
                                    "[schedule]\nkind='linear'\ntotal=0\n",
                                    "[schedule]\nkind='linear'\ntotal=1.5\n",
                                    "[schedule]\nkind='linear'\ntotal=9999999999999999\n",
                                    "[schedule]\nkind='linear'\ntotal=10\nevery=5\n",
                                    "[schedule]\nkind='cosine'\ntotal=10\ngamma=0.5\n",
                                    "[schedule]\nkind='cosine'\ntotal=10\nmin_lr_scale=1.5\n",
                                    "[schedule]\nkind='step'\n",
                                    "[schedule]\nkind='step'\nevery=0\n",
                                    "[schedule]\nkind='step'\nevery=5\ngamma=2\n",
                                    "[schedule]\nkind='step'\nevery=5\ntotal=10\n",
                                    "[schedule]\nwarmup=-1\n",
                                    "[schedule]\nmin_lr_scale=0.5\n",
                                    "[schedule]\nwarm=5\n",
                                    "[combine]\nkind='best'\n",
                                    "[other]\n",
                                    "x = 1\n",
                                    "[optimizer\n",
                                    "[optimizer]\n\"lr eps\" = 1\n",
                                    "[optimizer]\nlr = 1\nlr = 2\n"};

TEST(Config, RefusalsNameKeyAndLine) {
  EXPECT_EQ(
      refusal("[optimizer]\nprofile = \"exact\"\n"),
      "invalid: descent.toml line 2: optimizer.profile is 'exact'; it must be \"fast\" or \"torch1-fma\"");
  EXPECT_EQ(
      refusal("[optimizer]\nname = \"adan\"\n"),
      "invalid: descent.toml line 2: optimizer.name is 'adan'; it must be one of sgd, momentum, nesterov, "
      "adam, adamw, adagrad, rmsprop, lion, lamb");
  EXPECT_EQ(refusal("[optimizer]\n\nlr = -1\n"),
            "invalid: descent.toml line 3: optimizer.lr is -1; it must be a finite number of at least 0");
  EXPECT_EQ(refusal("[optimizer]\nmomemtum = 0.9\n"),
            "invalid: descent.toml line 2: unknown key optimizer.momemtum; known are: name lr betas eps "
            "weight_decay momentum dampening alpha lr_decay initial_accumulator_value profile");
  EXPECT_EQ(
      refusal("[optimizer]\nname = \"lion\"\neps = 1e-8\n"),
      "invalid: descent.toml line 3: optimizer.eps is only for adam, adamw, adagrad, rmsprop, lamb; the "
      "optimizer is lion");
  EXPECT_EQ(
      refusal("[optimizer]\nname = \"adam\"\n[[group]]\nmatch = \"*\"\nmomentum = 0.5\n"),
      "invalid: descent.toml line 5: group.momentum is only for momentum, nesterov, rmsprop; the optimizer "
      "is adam");
  EXPECT_EQ(refusal("[schedule]\nkind = \"exp\"\n"),
            "invalid: descent.toml line 2: schedule.kind is 'exp'; it must be one of constant, step, cosine, "
            "linear");
}

TEST(Config, RefusesInOneLineThatNamesALine) {
  for (const char* bad : kRefused) {
    const auto config = parse_config(bad);
    ASSERT_FALSE(config) << bad;
    EXPECT_EQ(config.error().code, Errc::kInvalid);
    EXPECT_NE(config.error().detail.find("descent.toml line "), std::string::npos)
        << bad << config.error().detail;
    EXPECT_EQ(config.error().detail.find('\n'), std::string::npos) << bad;
  }
}

TEST(Config, RenderedTextReadsBack) {
  for (const Optimizer optimizer : kAllOptimizers) {
    DescentConfig config = default_config(optimizer);
    config.lr = 0.1 / 3;
    config.ack = Ack::kCommitted;
    config.groups.push_back({"a\"*\\", 0.25, std::nullopt, true});
    if (has_key(optimizer, "betas")) config.groups[0].betas = {0.5, 1.0 / 3};
    if (has_key(optimizer, "eps")) config.groups[0].eps = 1e-4;
    if (has_key(optimizer, "momentum")) config.groups[0].momentum = 0.7;
    if (has_key(optimizer, "alpha")) config.alpha = 0.97;
    if (has_key(optimizer, "lr_decay")) config.lr_decay = 0.01;
    if (has_key(optimizer, "initial_accumulator_value")) config.initial_accumulator_value = 0.25;
    const auto back = parse_config(render_config(config));
    ASSERT_TRUE(back) << back.error().message() << render_config(config);
    EXPECT_EQ(back.value().optimizer, optimizer);
    EXPECT_EQ(back.value().lr, config.lr);
    EXPECT_EQ(back.value().momentum, config.momentum);
    EXPECT_EQ(back.value().weight_decay, config.weight_decay);
    EXPECT_EQ(back.value().beta2, config.beta2);
    EXPECT_EQ(back.value().eps, config.eps);
    EXPECT_EQ(back.value().ack, config.ack);
    ASSERT_EQ(back.value().groups.size(), 1U);
    EXPECT_EQ(back.value().groups[0].match, "a\"*\\");
    EXPECT_EQ(back.value().groups[0].weight_decay, 0.25);
    EXPECT_EQ(back.value().groups[0].frozen, true);
    EXPECT_EQ(back.value().groups[0].betas, config.groups[0].betas);
    EXPECT_EQ(back.value().groups[0].eps, config.groups[0].eps);
    EXPECT_EQ(back.value().groups[0].momentum, config.groups[0].momentum);
    EXPECT_EQ(back.value().beta1, config.beta1);
    EXPECT_EQ(back.value().alpha, config.alpha);
    EXPECT_EQ(back.value().lr_decay, config.lr_decay);
    EXPECT_EQ(back.value().initial_accumulator_value, config.initial_accumulator_value);
  }
  EXPECT_TRUE(parse_config(render_config(default_config(Optimizer::kAdam))));
}

TEST(Config, RenderedSchedulesReadBack) {
  for (const Schedule& schedule : {Schedule{Schedule::Kind::kConstant, 3, 0, 1, 0.1, 0.0},
                                   Schedule{Schedule::Kind::kStep, 0, 0, 30, 0.5, 0.125},
                                   Schedule{Schedule::Kind::kCosine, 100, 10000, 1, 0.1, 0.25},
                                   Schedule{Schedule::Kind::kLinear, 0, 7, 1, 0.1, 0.0}}) {
    DescentConfig config = default_config(Optimizer::kSgd);
    config.schedule = schedule;
    const auto back = parse_config(render_config(config));
    ASSERT_TRUE(back) << back.error().message() << render_config(config);
    const Schedule& is = back.value().schedule;
    EXPECT_EQ(is.kind, schedule.kind);
    EXPECT_EQ(is.warmup, schedule.warmup);
    EXPECT_EQ(is.total, schedule.total);
    EXPECT_EQ(is.every, schedule.every);
    EXPECT_EQ(is.gamma, schedule.gamma);
    EXPECT_EQ(is.min_lr_scale, schedule.min_lr_scale);
  }
}

Schedule schedule_of(const std::string& text) {
  const auto config = parse_config("[schedule]\n" + text);
  EXPECT_TRUE(config) << config.error().message();
  return config.value().schedule;
}

TEST(Schedule, WithoutOneTheRateIsAsItWas) {
  const Schedule schedule = parse_config("").value().schedule;
  for (const std::uint64_t version : {0ULL, 1ULL, 1000ULL, 1ULL << 60})
    EXPECT_EQ(schedule.factor(version), 1.0);
}

TEST(Schedule, WarmsUpAndThenStays) {
  const Schedule schedule = schedule_of("warmup = 4");
  EXPECT_EQ(schedule.factor(0), 0.25);
  EXPECT_EQ(schedule.factor(2), 0.75);
  EXPECT_EQ(schedule.factor(3), 1.0);
  EXPECT_EQ(schedule.factor(4), 1.0);
  EXPECT_EQ(schedule.factor(4000), 1.0);
}

TEST(Schedule, StepsDownToItsLeast) {
  const Schedule schedule = schedule_of("kind='step'\nwarmup=2\nevery=10\ngamma=0.5\nmin_lr_scale=0.2");
  EXPECT_EQ(schedule.factor(0), 0.5);
  EXPECT_EQ(schedule.factor(2), 1.0);
  EXPECT_EQ(schedule.factor(11), 1.0);
  EXPECT_EQ(schedule.factor(12), 0.5);
  EXPECT_EQ(schedule.factor(22), 0.25);
  EXPECT_EQ(schedule.factor(32), 0.2);
  EXPECT_EQ(schedule.factor(1ULL << 50), 0.2);
}

TEST(Schedule, FallsInALine) {
  const Schedule schedule = schedule_of("kind='linear'\nwarmup=2\ntotal=10\nmin_lr_scale=0.5");
  EXPECT_EQ(schedule.factor(1), 1.0);
  EXPECT_EQ(schedule.factor(2), 1.0);
  EXPECT_EQ(schedule.factor(6), 0.75);
  EXPECT_EQ(schedule.factor(10), 0.5);
  EXPECT_EQ(schedule.factor(11), 0.5);
}

TEST(Schedule, FallsAsACosine) {
  const Schedule schedule = schedule_of("kind='cosine'\ntotal=12\nmin_lr_scale=0.25");
  EXPECT_EQ(schedule.factor(0), 1.0);
  EXPECT_DOUBLE_EQ(schedule.factor(4), 0.25 + 0.75 * 0.75);  // cos(60 degrees) is a half
  EXPECT_DOUBLE_EQ(schedule.factor(6), 0.625);
  EXPECT_EQ(schedule.factor(12), 0.25);
  EXPECT_EQ(schedule.factor(500), 0.25);
}

}  // namespace
}  // namespace gradfs
