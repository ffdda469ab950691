#include "fs/base/size.h"

#include <array>
#include <charconv>
#include <cstdio>

namespace gradfs {
namespace {

constexpr std::string_view kUnits = "KMGTP";

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  const Error invalid(Errc::kInvalid, "size '" + std::string(text) + "': write it as 512MiB or 4GiB");
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || value == 0) return invalid;
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (unit.ends_with("iB")) {
    unit.remove_suffix(2);
    if (unit.empty()) return invalid;
  } else if (unit.ends_with("B")) {
    unit.remove_suffix(1);
  }
  if (unit.empty()) return value;
  const std::size_t power = kUnits.find(unit);
  if (unit.size() != 1 || power == std::string_view::npos) return invalid;
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (value > (std::uint64_t{1} << 63) >> shift) return invalid;
  return value << shift;
}

std::string format_size(std::uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  auto scaled = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (scaled /= 1024; scaled >= 1024 && unit + 1 < kUnits.size(); scaled /= 1024) ++unit;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %ciB", scaled, kUnits[unit]);
  return text.data();
}

}  // namespace gradfs
