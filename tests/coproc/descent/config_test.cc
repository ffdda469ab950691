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

TEST(Config, RefusalsNameKeyAndLine) {
  EXPECT_EQ(
      refusal("[optimizer]\nprofile = \"exact\"\n"),
      "invalid: descent.toml line 2: optimizer.profile is 'exact'; it must be \"fast\" or \"torch1-fma\"");
  EXPECT_EQ(
      refusal("[optimizer]\nname = \"adan\"\n"),
      "invalid: descent.toml line 2: optimizer.name is 'adan'; it must be one of \"sgd\", \"momentum\", "
      "\"nesterov\", \"adam\", \"adamw\"");
  EXPECT_EQ(refusal("[optimizer]\n\nlr = -1\n"),
            "invalid: descent.toml line 3: optimizer.lr is -1; it must be a finite number of at least 0");
  EXPECT_EQ(refusal("[optimizer]\nmomemtum = 0.9\n"),
            "invalid: descent.toml line 2: unknown key optimizer.momemtum; known are: name lr betas eps "
            "weight_decay "
            "momentum dampening profile");
  for (const char* bad : {"[optimizer]\nlr = nan\n",
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
                          "[schedule]\nkind='cosine'\n",
                          "[combine]\nkind='best'\n",
                          "[other]\n",
                          "x = 1\n",
                          "[optimizer\n",
                          "[optimizer]\n\"lr eps\" = 1\n",
                          "[optimizer]\nlr = 1\nlr = 2\n"}) {
    const auto config = parse_config(bad);
    ASSERT_FALSE(config) << bad;
    EXPECT_EQ(config.error().code, Errc::kInvalid);
    EXPECT_NE(config.error().detail.find("descent.toml line "), std::string::npos)
        << bad << config.error().detail;
    EXPECT_EQ(config.error().detail.find('\n'), std::string::npos) << bad;
  }
}

TEST(Config, RenderedTextReadsBack) {
  for (const Optimizer optimizer :
       {Optimizer::kSgd, Optimizer::kMomentum, Optimizer::kNesterov, Optimizer::kAdam, Optimizer::kAdamw}) {
    DescentConfig config = default_config(optimizer);
    config.lr = 0.1 / 3;
    config.ack = Ack::kCommitted;
    config.groups.push_back({"a\"*\\", 0.25, std::nullopt, true});
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
  }
  EXPECT_TRUE(parse_config(render_config(default_config(Optimizer::kAdam))));
}

}  // namespace
}  // namespace gradfs
