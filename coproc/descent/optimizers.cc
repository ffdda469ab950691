#include "coproc/descent/optimizers.h"

#include <array>
#include <iterator>

namespace gradfs {
namespace {

struct Known {
  Optimizer optimizer;
  std::string_view name;
  std::string_view keys;  // beyond lr and weight_decay; a space before and after each
};

constexpr std::array kKnown{
    Known{Optimizer::kSgd, "sgd", ""},
    Known{Optimizer::kMomentum, "momentum", " momentum dampening "},
    Known{Optimizer::kNesterov, "nesterov", " momentum dampening "},
    Known{Optimizer::kAdam, "adam", " betas eps "},
    Known{Optimizer::kAdamw, "adamw", " betas eps "},
    Known{Optimizer::kAdagrad, "adagrad", " lr_decay eps initial_accumulator_value "},
    Known{Optimizer::kRmsprop, "rmsprop", " alpha eps momentum "},
    Known{Optimizer::kLion, "lion", " betas "},
    Known{Optimizer::kLamb, "lamb", " betas eps "},
};
static_assert(kKnown.size() == std::size(kAllOptimizers));

bool contains(std::string_view keys, std::string_view key) {
  for (std::size_t at = keys.find(key); at != std::string_view::npos; at = keys.find(key, at + 1)) {
    if (at > 0 && keys[at - 1] == ' ' && keys.substr(at + key.size()).starts_with(' ')) return true;
  }
  return false;
}

void append(std::string& list, std::string_view name) {
  if (!list.empty()) list += ", ";
  list += name;
}

}  // namespace

std::string_view to_text(Optimizer optimizer) noexcept {
  for (const Known& one : kKnown) {
    if (one.optimizer == optimizer) return one.name;
  }
  return "unknown";
}

std::optional<Optimizer> optimizer_from_text(std::string_view name) noexcept {
  for (const Known& one : kKnown) {
    if (one.name == name) return one.optimizer;
  }
  return std::nullopt;
}

std::optional<Optimizer> optimizer_from_value(std::uint32_t value) noexcept {
  for (const Known& one : kKnown) {
    if (static_cast<std::uint32_t>(one.optimizer) == value) return one.optimizer;
  }
  return std::nullopt;
}

std::string optimizer_names() {
  std::string out;
  for (const Known& one : kKnown) append(out, one.name);
  return out;
}

bool has_key(Optimizer optimizer, std::string_view key) noexcept {
  bool is_special = false;
  for (const Known& one : kKnown) {
    if (!contains(one.keys, key)) continue;
    if (one.optimizer == optimizer) return true;
    is_special = true;
  }
  return !is_special;
}

std::string optimizers_with_key(std::string_view key) {
  std::string out;
  for (const Known& one : kKnown) {
    if (contains(one.keys, key)) append(out, one.name);
  }
  return out;
}

bool has_decoupled_decay(Optimizer optimizer) noexcept {
  return optimizer == Optimizer::kAdamw || optimizer == Optimizer::kLion || optimizer == Optimizer::kLamb;
}

}  // namespace gradfs
