// descent.toml as it is written for a new model.
#include <toml++/toml.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "coproc/descent/config.h"

namespace gradfs {
namespace {

// The shortest text that reads back as the same double, and that TOML takes for a float.
std::string render(double value) {
  for (int digits = 1; digits <= 17; ++digits) {
    char text[40];
    std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (std::strtod(text, nullptr) != value) continue;
    std::string out = text;
    if (out.find_first_of(".e") == std::string::npos) out += ".0";
    return out;
  }
  return "0.0";
}

std::string render(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}

std::string line(const std::string& key, const std::string& value, const std::string& comment) {
  std::string out = key + " = " + value;
  out.resize(std::max<std::size_t>(out.size() + 2, 30), ' ');
  return out + "# " + comment + "\n";
}

std::string render(double first, double second) { return "[" + render(first) + ", " + render(second) + "]"; }

std::string render_optimizer(const DescentConfig& config) {
  const Optimizer optimizer = config.optimizer;
  std::string out = "[optimizer]\n";
  out += line("name", "\"" + std::string(to_text(optimizer)) + "\"", optimizer_names());
  out += line("lr", render(config.lr), "learning rate");
  if (has_key(optimizer, "betas")) {
    out += line("betas", render(config.beta1, config.beta2),
                optimizer == Optimizer::kLion ? "what the sign, and what the average keeps of the average"
                                              : "of the two running averages");
  }
  if (has_key(optimizer, "alpha"))
    out += line("alpha", render(config.alpha), "of the running average of squares");
  if (has_key(optimizer, "eps")) out += line("eps", render(config.eps), "added to the denominator");
  if (has_key(optimizer, "momentum")) out += line("momentum", render(config.momentum), "below 1");
  if (optimizer == Optimizer::kMomentum) out += line("dampening", render(config.dampening), "from 0 to 1");
  if (has_key(optimizer, "lr_decay"))
    out += line("lr_decay", render(config.lr_decay), "lr / (1 + lr_decay * updates before)");
  if (has_key(optimizer, "initial_accumulator_value")) {
    out += line("initial_accumulator_value", render(config.initial_accumulator_value),
                "of the sums of squares, at the first update of a tensor");
  }
  out += line("weight_decay", render(config.weight_decay),
              has_decoupled_decay(optimizer) ? "decoupled from the gradient" : "L2: added to the gradient");
  if (!config.flushes_subnormals) out += line("profile", "\"torch1-fma\"", "subnormal numbers are kept");
  return out;
}

std::string render_group(const DescentGroup& group) {
  std::string out = "\n[[group]]\nmatch = " + render(group.match) + "\n";
  if (group.weight_decay) out += "weight_decay = " + render(*group.weight_decay) + "\n";
  if (group.lr_scale) out += "lr_scale = " + render(*group.lr_scale) + "\n";
  if (group.frozen) out += std::string("frozen = ") + (*group.frozen ? "true\n" : "false\n");
  if (group.betas) out += "betas = " + render((*group.betas)[0], (*group.betas)[1]) + "\n";
  if (group.eps) out += "eps = " + render(*group.eps) + "\n";
  if (group.momentum) out += "momentum = " + render(*group.momentum) + "\n";
  return out;
}

std::string render_schedule(const Schedule& schedule) {
  if (schedule.kind == Schedule::Kind::kConstant && schedule.warmup == 0) {
    return "\n# The rate over time: constant, step (every, gamma), cosine or linear (total).\n"
           "# [schedule]\n# kind = \"cosine\"\n# warmup = 100\n# total = 10000\n# min_lr_scale = 0.0\n";
  }
  std::string out = "\n[schedule]\n" + line("kind", "\"" + std::string(to_text(schedule.kind)) + "\"",
                                            "constant, step (every, gamma), cosine or linear (total)");
  out += line("warmup", std::to_string(schedule.warmup), "updates in which the rate rises from near 0");
  if (schedule.kind == Schedule::Kind::kStep) {
    out += line("every", std::to_string(schedule.every), "updates from one step to the next");
    out += line("gamma", render(schedule.gamma), "what the rate is multiplied by at each step");
  } else if (schedule.kind != Schedule::Kind::kConstant) {
    out += line("total", std::to_string(schedule.total), "updates, warm-up included, to the lowest rate");
  }
  if (schedule.kind != Schedule::Kind::kConstant)
    out += line("min_lr_scale", render(schedule.min_lr_scale), "the lowest rate, as a part of lr");
  return out;
}

}  // namespace

std::string render_config(const DescentConfig& config) {
  std::string out =
      "# How this model learns. An edit takes effect with the next number; a refused one changes "
      "nothing.\n\n";
  out += render_optimizer(config);
  for (const DescentGroup& group : config.groups) out += render_group(group);
  if (config.groups.empty()) {
    out +=
        "\n# Exceptions for tensors by name; for each key the last match wins. Also betas, eps and "
        "momentum.\n"
        "# [[group]]\n# match = \"*.bias\"\n# weight_decay = 0.0\n# lr_scale = 1.0\n# frozen = false\n";
  }
  out += render_schedule(config.schedule);
  out += "\n[policy]\n" + line("mode", "\"async\"", "each gradient is applied as it lands");
  out += line("ack", config.ack == Ack::kApplied ? "\"applied\"" : "\"committed\"",
              "what close() waits for: applied, or committed (durable)");
  return out;
}

}  // namespace gradfs
