// The built-in optimizers by name, and which keys of descent.toml each of them has.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace gradfs {

// The values are stored in control files: never renumber.
enum class Optimizer : std::uint32_t {
  kSgd = 1,
  kMomentum = 2,
  kNesterov = 3,
  kAdam = 4,
  kAdamw = 5,
  kAdagrad = 6,
  kRmsprop = 7,
  kLion = 8,
  kLamb = 9,
};

inline constexpr Optimizer kAllOptimizers[] = {
    Optimizer::kSgd,     Optimizer::kMomentum, Optimizer::kNesterov, Optimizer::kAdam, Optimizer::kAdamw,
    Optimizer::kAdagrad, Optimizer::kRmsprop,  Optimizer::kLion,     Optimizer::kLamb};

std::string_view to_text(Optimizer optimizer) noexcept;  // "sgd"
std::optional<Optimizer> optimizer_from_text(std::string_view name) noexcept;
std::optional<Optimizer> optimizer_from_value(std::uint32_t value) noexcept;
// "sgd, momentum, nesterov, ..."
std::string optimizer_names();

// Whether `key` of [optimizer] means something to the optimizer. True for the keys that all of them have, and
// for those that nobody knows.
bool has_key(Optimizer optimizer, std::string_view key) noexcept;
// "adam, adamw, lion, lamb": those that have it.
std::string optimizers_with_key(std::string_view key);

// Weight decay shrinks the parameters by itself; elsewhere it is L2, a part of the gradient.
bool has_decoupled_decay(Optimizer optimizer) noexcept;

}  // namespace gradfs
