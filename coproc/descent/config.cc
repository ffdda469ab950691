#include "coproc/descent/config.h"

#include <fnmatch.h>

#include <toml++/toml.h>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace gradfs {
namespace {

constexpr std::array<std::pair<Optimizer, std::string_view>, 5> kNames{{{Optimizer::kSgd, "sgd"},
                                                                        {Optimizer::kMomentum, "momentum"},
                                                                        {Optimizer::kNesterov, "nesterov"},
                                                                        {Optimizer::kAdam, "adam"},
                                                                        {Optimizer::kAdamw, "adamw"}}};
constexpr double kFloatMax = 3.0e38;

// Beyond an optimizer's own keys these are refused, as they would have no effect.
bool uses_momentum(Optimizer optimizer) {
  return optimizer == Optimizer::kMomentum || optimizer == Optimizer::kNesterov;
}
bool uses_betas(Optimizer optimizer) {
  return optimizer == Optimizer::kAdam || optimizer == Optimizer::kAdamw;
}

Error invalid_at(const toml::node& node, const std::string& text) {
  return {Errc::kInvalid, "descent.toml line " + std::to_string(node.source().begin.line) + ": " + text};
}

std::string shown(const toml::node& node) {
  std::ostringstream out;
  node.visit([&](const auto& value) { out << value; });
  std::string text = out.str().substr(0, 60);
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

struct Range {
  double low;
  double high;
  bool open_high;
  const char* text;
};
constexpr Range kNotNegative{0.0, kFloatMax, false, "a finite number of at least 0"};
constexpr Range kFraction{0.0, 1.0, true, "a number of at least 0 and below 1"};
constexpr Range kClosedFraction{0.0, 1.0, false, "a number from 0 to 1"};
constexpr Range kEpsilon{1e-30, kFloatMax, false, "a finite number of at least 1e-30"};

Result<double> number(const toml::node& node, const std::string& key, const Range& range) {
  const auto value = node.is_number() ? node.value<double>() : std::nullopt;
  const bool inside =
      value && *value >= range.low && (range.open_high ? *value < range.high : *value <= range.high);
  if (!inside) return invalid_at(node, key + " is " + shown(node) + "; it must be " + range.text);
  return *value;
}

// Every key of the table is one of `allowed`.
Result<void> check_keys(const toml::table& table, const std::string& name, std::string_view allowed) {
  for (const auto& [key, node] : table) {
    const std::string padded = " " + std::string(key.str()) + " ";
    if ((" " + std::string(allowed) + " ").find(padded) == std::string::npos ||
        padded.find(' ', 1) + 1 != padded.size()) {
      return Error(Errc::kInvalid, "descent.toml line " + std::to_string(key.source().begin.line) +
                                       ": unknown key " + name + std::string(key.str()) +
                                       "; known are: " + std::string(allowed));
    }
  }
  return ok();
}

Result<void> parse_betas(const toml::node& node, DescentConfig& config) {
  const toml::array* betas = node.as_array();
  if (betas == nullptr || betas->size() != 2) {
    return invalid_at(node, "optimizer.betas must be two numbers, as [0.9, 0.999]");
  }
  GRADFS_TRY(config.beta1, number(*betas->get(0), "optimizer.betas[0]", kFraction));
  GRADFS_TRY(config.beta2, number(*betas->get(1), "optimizer.betas[1]", kFraction));
  return ok();
}

Result<Optimizer> parse_name(const toml::table& table) {
  const toml::node* node = table.get("name");
  if (node == nullptr) return Optimizer::kSgd;
  const auto text = node->value_exact<std::string>();
  const auto optimizer = text ? optimizer_from_text(*text) : std::nullopt;
  if (!optimizer) {
    return invalid_at(*node,
                      "optimizer.name is " + shown(*node) +
                          "; it must be one of \"sgd\", \"momentum\", \"nesterov\", \"adam\", \"adamw\"");
  }
  return *optimizer;
}

Result<DescentConfig> parse_optimizer(const toml::table& table) {
  GRADFS_TRYV(check_keys(table, "optimizer.", "name lr betas eps weight_decay momentum dampening profile"));
  GRADFS_TRY(const Optimizer optimizer, parse_name(table));
  DescentConfig config = default_config(optimizer);
  for (const auto& [key, node] : table) {
    const std::string name = "optimizer." + std::string(key.str());
    const bool of_momentum = key == "momentum" || key == "dampening";
    const bool of_adam = key == "betas" || key == "eps";
    if ((of_momentum && !uses_momentum(optimizer)) || (of_adam && !uses_betas(optimizer))) {
      return invalid_at(node, name + " is only for " +
                                  (of_adam ? "adam and adamw" : "momentum and nesterov") +
                                  ", but the optimizer is " + std::string(to_text(optimizer)));
    }
    if (key == "lr") {
      GRADFS_TRY(config.lr, number(node, name, kNotNegative));
    } else if (key == "weight_decay") {
      GRADFS_TRY(config.weight_decay, number(node, name, kNotNegative));
    } else if (key == "momentum") {
      GRADFS_TRY(config.momentum, number(node, name, kFraction));
    } else if (key == "dampening") {
      GRADFS_TRY(config.dampening, number(node, name, kClosedFraction));
      if (optimizer == Optimizer::kNesterov && config.dampening != 0.0) {
        return invalid_at(node, name + " must be 0 with nesterov");
      }
    } else if (key == "eps") {
      GRADFS_TRY(config.eps, number(node, name, kEpsilon));
    } else if (key == "profile") {
      const auto text = node.value_exact<std::string>();
      if (text != "fast" && text != "torch1-fma") {
        return invalid_at(node, name + " is " + shown(node) + "; it must be \"fast\" or \"torch1-fma\"");
      }
      config.flushes_subnormals = text == "fast";
    } else if (key == "betas") {
      GRADFS_TRYV(parse_betas(node, config));
    }
  }
  if (optimizer == Optimizer::kNesterov && config.momentum == 0.0) {
    return invalid_at(table, "optimizer.momentum must be above 0 with nesterov");
  }
  return config;
}

Result<DescentGroup> parse_group(const toml::node& node) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return invalid_at(node, "group must be a table: write [[group]]");
  GRADFS_TRYV(check_keys(*table, "group.", "match weight_decay lr_scale frozen"));
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
  return group;
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

Result<const toml::table*> section(const toml::table& root, const char* name) {
  const toml::node* node = root.get(name);
  if (node == nullptr) return nullptr;
  if (node->as_table() == nullptr)
    return invalid_at(*node, std::string(name) + " must be a table: write [" + name + "]");
  return node->as_table();
}

Result<DescentConfig> parse_root(const toml::table& root) {
  for (const char* later : {"keep", "schedule", "combine"}) {
    if (const toml::node* node = root.get(later)) {
      return invalid_at(*node, "[" + std::string(later) + "] is not supported; remove it");
    }
  }
  GRADFS_TRYV(check_keys(root, "", "optimizer group policy"));
  GRADFS_TRY(const toml::table* optimizer, section(root, "optimizer"));
  // A copy of a table forgets its lines.
  const toml::table empty;
  GRADFS_TRY(DescentConfig config, parse_optimizer(optimizer != nullptr ? *optimizer : empty));
  GRADFS_TRY(const toml::table* policy, section(root, "policy"));
  if (policy != nullptr) {
    GRADFS_TRYV(parse_policy(*policy, config));
  }
  if (const toml::node* groups = root.get("group")) {
    if (groups->as_array() == nullptr) return invalid_at(*groups, "group must be a list: write [[group]]");
    for (const toml::node& node : *groups->as_array()) {
      GRADFS_TRY(DescentGroup group, parse_group(node));
      config.groups.push_back(std::move(group));
    }
  }
  return config;
}

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

}  // namespace

std::string_view to_text(Optimizer optimizer) noexcept {
  for (const auto& [value, name] : kNames) {
    if (value == optimizer) return name;
  }
  return "unknown";
}

std::optional<Optimizer> optimizer_from_text(std::string_view name) noexcept {
  for (const auto& [value, text] : kNames) {
    if (text == name) return value;
  }
  return std::nullopt;
}

std::optional<Optimizer> optimizer_from_value(std::uint32_t value) noexcept {
  for (const auto& [optimizer, name] : kNames) {
    if (static_cast<std::uint32_t>(optimizer) == value) return optimizer;
  }
  return std::nullopt;
}

DescentConfig::ForTensor DescentConfig::for_tensor(const std::string& name) const {
  ForTensor out{lr, weight_decay, false};
  double lr_scale = 1.0;
  for (const DescentGroup& group : groups) {
    if (::fnmatch(group.match.c_str(), name.c_str(), FNM_NOESCAPE) != 0) continue;
    out.weight_decay = group.weight_decay.value_or(out.weight_decay);
    lr_scale = group.lr_scale.value_or(lr_scale);
    out.frozen = group.frozen.value_or(out.frozen);
  }
  out.lr = lr * lr_scale;
  return out;
}

DescentConfig default_config(Optimizer optimizer) {
  DescentConfig config;
  config.optimizer = optimizer;
  if (uses_betas(optimizer)) config.lr = 1e-3;
  if (uses_momentum(optimizer)) config.momentum = 0.9;
  if (optimizer == Optimizer::kAdamw) config.weight_decay = 0.01;
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

std::string render_config(const DescentConfig& config) {
  const auto line = [](const std::string& key, const std::string& value, const char* comment) {
    std::string out = key + " = " + value;
    out.resize(std::max<std::size_t>(out.size() + 2, 30), ' ');
    return out + "# " + comment + "\n";
  };
  std::string out =
      "# How this model learns. An edit takes effect with the next number; a refused one changes "
      "nothing.\n\n";
  out += "[optimizer]\n";
  out += line("name", "\"" + std::string(to_text(config.optimizer)) + "\"",
              "sgd, momentum, nesterov, adam, adamw");
  out += line("lr", render(config.lr), "learning rate");
  if (uses_betas(config.optimizer)) {
    out += line("betas", "[" + render(config.beta1) + ", " + render(config.beta2) + "]",
                "of the two running averages");
    out += line("eps", render(config.eps), "added to the denominator");
  }
  if (uses_momentum(config.optimizer)) {
    out += line("momentum", render(config.momentum), "below 1");
    if (config.optimizer == Optimizer::kMomentum)
      out += line("dampening", render(config.dampening), "from 0 to 1");
  }
  out += line(
      "weight_decay", render(config.weight_decay),
      config.optimizer == Optimizer::kAdamw ? "decoupled from the gradient" : "L2: added to the gradient");
  if (!config.flushes_subnormals) out += line("profile", "\"torch1-fma\"", "subnormal numbers are kept");
  for (const DescentGroup& group : config.groups) {
    out += "\n[[group]]\nmatch = " + render(group.match) + "\n";
    if (group.weight_decay) out += "weight_decay = " + render(*group.weight_decay) + "\n";
    if (group.lr_scale) out += "lr_scale = " + render(*group.lr_scale) + "\n";
    if (group.frozen) out += std::string("frozen = ") + (*group.frozen ? "true\n" : "false\n");
  }
  if (config.groups.empty()) {
    out +=
        "\n# Exceptions for tensors by name; for each key the last match wins.\n"
        "# [[group]]\n# match = \"*.bias\"\n# weight_decay = 0.0\n# lr_scale = 1.0\n# frozen = false\n";
  }
  out += "\n[policy]\n" + line("mode", "\"async\"", "each gradient is applied as it lands");
  out += line("ack", config.ack == Ack::kApplied ? "\"applied\"" : "\"committed\"",
              "what close() waits for: applied, or committed (durable)");
  return out;
}

}  // namespace gradfs
