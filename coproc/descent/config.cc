#include "coproc/descent/config.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "coproc/descent/toml_reading.h"

namespace gradfs {
namespace {

using namespace toml_reading;

constexpr std::array kScheduleKinds{Schedule::Kind::kConstant, Schedule::Kind::kStep, Schedule::Kind::kCosine,
                                    Schedule::Kind::kLinear};

Result<std::array<double, 2>> parse_betas(const toml::node& node, const std::string& name) {
  const toml::array* betas = node.as_array();
  if (betas == nullptr || betas->size() != 2) {
    return invalid_at(node, name + " must be two numbers, as [0.9, 0.999]");
  }
  std::array<double, 2> out{};
  GRADFS_TRY(out[0], number(*betas->get(0), name + "[0]", kFraction));
  GRADFS_TRY(out[1], number(*betas->get(1), name + "[1]", kFraction));
  return out;
}

Result<Optimizer> parse_name(const toml::table& table) {
  const toml::node* node = table.get("name");
  if (node == nullptr) return Optimizer::kSgd;
  const auto text = node->value_exact<std::string>();
  const auto optimizer = text ? optimizer_from_text(*text) : std::nullopt;
  if (!optimizer) {
    return invalid_at(*node,
                      "optimizer.name is " + shown(*node) + "; it must be one of " + optimizer_names());
  }
  return *optimizer;
}

// Keys that mean nothing to the optimizer are refused, as they would have no effect.
Result<void> check_owned(const toml::table& table, const std::string& name, Optimizer optimizer) {
  for (const auto& [key, node] : table) {
    if (has_key(optimizer, key.str())) continue;
    return invalid_at(node, name + std::string(key.str()) + " is only for " + optimizers_with_key(key.str()) +
                                "; the optimizer is " + std::string(to_text(optimizer)));
  }
  return ok();
}

Result<double> parse_momentum(const toml::node& node, const std::string& name, Optimizer optimizer) {
  GRADFS_TRY(const double momentum, number(node, name, kFraction));
  if (optimizer == Optimizer::kNesterov && momentum == 0.0) {
    return invalid_at(node, name + " must be above 0 with nesterov");
  }
  return momentum;
}

Result<void> parse_key(std::string_view key, const toml::node& node, DescentConfig& config) {
  const std::string name = "optimizer." + std::string(key);
  if (key == "lr") {
    GRADFS_TRY(config.lr, number(node, name, kNotNegative));
  } else if (key == "weight_decay") {
    GRADFS_TRY(config.weight_decay, number(node, name, kNotNegative));
  } else if (key == "momentum") {
    GRADFS_TRY(config.momentum, parse_momentum(node, name, config.optimizer));
  } else if (key == "dampening") {
    GRADFS_TRY(config.dampening, number(node, name, kClosedFraction));
    if (config.optimizer == Optimizer::kNesterov && config.dampening != 0.0) {
      return invalid_at(node, name + " must be 0 with nesterov");
    }
  } else if (key == "betas") {
    GRADFS_TRY(const auto betas, parse_betas(node, name));
    config.beta1 = betas[0];
    config.beta2 = betas[1];
  } else if (key == "eps") {
    GRADFS_TRY(config.eps, number(node, name, kEpsilon));
  } else if (key == "alpha") {
    GRADFS_TRY(config.alpha, number(node, name, kFraction));
  } else if (key == "lr_decay") {
    GRADFS_TRY(config.lr_decay, number(node, name, kNotNegative));
  } else if (key == "initial_accumulator_value") {
    GRADFS_TRY(config.initial_accumulator_value, number(node, name, kNotNegative));
  } else if (key == "profile") {
    const auto text = node.value_exact<std::string>();
    if (text != "fast" && text != "torch1-fma") {
      return invalid_at(node, name + " is " + shown(node) + "; it must be \"fast\" or \"torch1-fma\"");
    }
    config.flushes_subnormals = text == "fast";
  }
  return ok();
}

Result<DescentConfig> parse_optimizer(const toml::table& table) {
  GRADFS_TRYV(check_keys(table, "optimizer.",
                         "name lr betas eps weight_decay momentum dampening alpha lr_decay "
                         "initial_accumulator_value profile"));
  GRADFS_TRY(const Optimizer optimizer, parse_name(table));
  GRADFS_TRYV(check_owned(table, "optimizer.", optimizer));
  DescentConfig config = default_config(optimizer);
  for (const auto& [key, node] : table) {
    GRADFS_TRYV(parse_key(key.str(), node, config));
  }
  return config;
}

Result<DescentGroup> parse_group(const toml::node& node, Optimizer optimizer) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return invalid_at(node, "group must be a table: write [[group]]");
  GRADFS_TRYV(check_keys(*table, "group.", "match weight_decay lr_scale frozen betas eps momentum"));
  GRADFS_TRYV(check_owned(*table, "group.", optimizer));
  DescentGroup group;
  const toml::node* match = table->get("match");
  group.match = match != nullptr ? match->value_exact<std::string>().value_or("") : "";
  if (group.match.empty()) {
    return invalid_at(match != nullptr ? *match : *table,
                      "group.match must be a pattern of tensor names, as \"*.bias\"");
  }
  if (const toml::node* value = table->get("weight_decay")) {
    GRADFS_TRY(group.weight_decay, number(*value, "group.weight_decay", kNotNegative));
  }
  if (const toml::node* value = table->get("lr_scale")) {
    GRADFS_TRY(group.lr_scale, number(*value, "group.lr_scale", kNotNegative));
  }
  if (const toml::node* value = table->get("frozen")) {
    group.frozen = value->value_exact<bool>();
    if (!group.frozen)
      return invalid_at(*value, "group.frozen is " + shown(*value) + "; it must be true or false");
  }
  if (const toml::node* value = table->get("betas")) {
    GRADFS_TRY(group.betas, parse_betas(*value, "group.betas"));
  }
  if (const toml::node* value = table->get("eps")) {
    GRADFS_TRY(group.eps, number(*value, "group.eps", kEpsilon));
  }
  if (const toml::node* value = table->get("momentum")) {
    GRADFS_TRY(group.momentum, parse_momentum(*value, "group.momentum", optimizer));
  }
  return group;
}

Result<Schedule::Kind> parse_kind(const toml::table& table) {
  const toml::node* node = table.get("kind");
  if (node == nullptr) return Schedule::Kind::kConstant;
  const auto text = node->value_exact<std::string>();
  for (const Schedule::Kind kind : kScheduleKinds) {
    if (text == to_text(kind)) return kind;
  }
  return invalid_at(
      *node, "schedule.kind is " + shown(*node) + "; it must be one of constant, step, cosine, linear");
}

Result<Schedule> parse_schedule(const toml::table& table) {
  GRADFS_TRYV(check_keys(table, "schedule.", "kind warmup total every gamma min_lr_scale"));
  Schedule out;
  GRADFS_TRY(out.kind, parse_kind(table));
  const bool is_step = out.kind == Schedule::Kind::kStep;
  const bool has_end = out.kind == Schedule::Kind::kCosine || out.kind == Schedule::Kind::kLinear;
  for (const auto& [key, node] : table) {
    const std::string name = "schedule." + std::string(key.str());
    const bool of_step = key == "every" || key == "gamma";
    if ((of_step && !is_step) || (key == "total" && !has_end) ||
        (key == "min_lr_scale" && out.kind == Schedule::Kind::kConstant)) {
      return invalid_at(node, name + " has no meaning for the kind " + std::string(to_text(out.kind)));
    }
    if (key == "warmup") {
      GRADFS_TRY(out.warmup, whole_number(node, name, 0));
    } else if (key == "total") {
      GRADFS_TRY(out.total, whole_number(node, name, 1));
    } else if (key == "every") {
      GRADFS_TRY(out.every, whole_number(node, name, 1));
    } else if (key == "gamma") {
      GRADFS_TRY(out.gamma, number(node, name, kClosedFraction));
    } else if (key == "min_lr_scale") {
      GRADFS_TRY(out.min_lr_scale, number(node, name, kClosedFraction));
    }
  }
  if (has_end && out.total <= out.warmup) {
    const toml::node* total = table.get("total");
    return invalid_at(total != nullptr ? *total : table, "schedule.total must be above schedule.warmup");
  }
  if (is_step && table.get("every") == nullptr) {
    return invalid_at(table, "schedule.every is missing: the updates from one step to the next");
  }
  return out;
}

Result<void> parse_policy(const toml::table& table, DescentConfig& config) {
  for (const char* later : {"members", "quorum", "max_staleness", "deadline_s"}) {
    if (const toml::node* node = table.get(later)) {
      return invalid_at(*node, std::string("policy.") + later +
                                   " belongs to modes that are not supported: mode is \"async\"");
    }
  }
  GRADFS_TRYV(check_keys(table, "policy.", "mode ack"));
  if (const toml::node* mode = table.get("mode");
      mode != nullptr && mode->value_exact<std::string>() != "async") {
    return invalid_at(*mode, "policy.mode is " + shown(*mode) + "; only \"async\" is supported");
  }
  if (const toml::node* ack = table.get("ack")) {
    const auto text = ack->value_exact<std::string>();
    if (text != "applied" && text != "committed") {
      return invalid_at(*ack, "policy.ack is " + shown(*ack) + "; it must be \"applied\" or \"committed\"");
    }
    config.ack = text == "applied" ? Ack::kApplied : Ack::kCommitted;
  }
  return ok();
}

Result<DescentConfig> parse_root(const toml::table& root) {
  for (const char* later : {"keep", "combine"}) {
    if (const toml::node* node = root.get(later)) {
      return invalid_at(*node, "[" + std::string(later) + "] is not supported; remove it");
    }
  }
  GRADFS_TRYV(check_keys(root, "", "optimizer group schedule policy"));
  GRADFS_TRY(const toml::table* optimizer, section(root, "optimizer"));
  // A copy of a table forgets its lines.
  const toml::table empty;
  GRADFS_TRY(DescentConfig config, parse_optimizer(optimizer != nullptr ? *optimizer : empty));
  GRADFS_TRY(const toml::table* policy, section(root, "policy"));
  if (policy != nullptr) {
    GRADFS_TRYV(parse_policy(*policy, config));
  }
  GRADFS_TRY(const toml::table* schedule, section(root, "schedule"));
  if (schedule != nullptr) {
    GRADFS_TRY(config.schedule, parse_schedule(*schedule));
  }
  if (const toml::node* groups = root.get("group")) {
    if (groups->as_array() == nullptr) return invalid_at(*groups, "group must be a list: write [[group]]");
    for (const toml::node& node : *groups->as_array()) {
      GRADFS_TRY(DescentGroup group, parse_group(node, config.optimizer));
      config.groups.push_back(std::move(group));
    }
  }
  return config;
}

}  // namespace

std::string_view to_text(Schedule::Kind kind) noexcept {
  switch (kind) {
    case Schedule::Kind::kConstant:
      return "constant";
    case Schedule::Kind::kStep:
      return "step";
    case Schedule::Kind::kCosine:
      return "cosine";
    case Schedule::Kind::kLinear:
      return "linear";
  }
  return "unknown";
}

double Schedule::factor(std::uint64_t version) const noexcept {
  if (version < warmup) return static_cast<double>(version + 1) / static_cast<double>(warmup);
  const std::uint64_t past = version - warmup;
  if (kind == Kind::kConstant) return 1.0;
  if (kind == Kind::kStep) {
    return std::max(min_lr_scale, std::pow(gamma, static_cast<double>(past / every)));
  }
  const double x = std::min(1.0, static_cast<double>(past) / static_cast<double>(total - warmup));
  if (kind == Kind::kLinear) return 1.0 - (1.0 - min_lr_scale) * x;
  return min_lr_scale + (1.0 - min_lr_scale) * (1.0 + std::cos(std::numbers::pi * x)) / 2.0;
}

DescentConfig::ForTensor DescentConfig::for_tensor(const std::string& name) const {
  ForTensor out{lr, weight_decay, momentum, beta1, beta2, eps, false};
  double lr_scale = 1.0;
  for (const DescentGroup& group : groups) {
    if (::fnmatch(group.match.c_str(), name.c_str(), FNM_NOESCAPE) != 0) continue;
    out.weight_decay = group.weight_decay.value_or(out.weight_decay);
    lr_scale = group.lr_scale.value_or(lr_scale);
    out.frozen = group.frozen.value_or(out.frozen);
    if (group.betas) {
      out.beta1 = (*group.betas)[0];
      out.beta2 = (*group.betas)[1];
    }
    out.eps = group.eps.value_or(out.eps);
    out.momentum = group.momentum.value_or(out.momentum);
  }
  out.lr = lr * lr_scale;
  return out;
}

DescentConfig default_config(Optimizer optimizer) {
  DescentConfig config;
  config.optimizer = optimizer;
  switch (optimizer) {
    case Optimizer::kSgd:
    case Optimizer::kRmsprop:
      break;
    case Optimizer::kMomentum:
    case Optimizer::kNesterov:
      config.momentum = 0.9;
      break;
    case Optimizer::kAdam:
      config.lr = 1e-3;
      break;
    case Optimizer::kAdamw:
      config.lr = 1e-3;
      config.weight_decay = 0.01;
      break;
    case Optimizer::kAdagrad:
      config.eps = 1e-10;
      break;
    case Optimizer::kLion:
      config.lr = 1e-4;
      config.beta2 = 0.99;
      break;
    case Optimizer::kLamb:
      config.lr = 1e-3;
      config.eps = 1e-6;
      config.weight_decay = 0.01;
      break;
  }
  return config;
}

Result<DescentConfig> parse_config(std::string_view text) {
  try {
    const toml::table root = toml::parse(text);
    return parse_root(root);
  } catch (const toml::parse_error& error) {
    return Error(Errc::kInvalid, "descent.toml line " + std::to_string(error.source().begin.line) + ": " +
                                     std::string(error.description()));
  }
}

}  // namespace gradfs
