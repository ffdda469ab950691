// What the parser of descent.toml reads with: every refusal names the line. Private to coproc/descent.
#pragma once

#include <toml++/toml.h>
#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace gradfs::toml_reading {

struct Range {
  double low;
  double high;
  bool open_high;
  const char* text;
};
inline constexpr double kFloatMax = 3.0e38;
inline constexpr Range kNotNegative{0.0, kFloatMax, false, "a finite number of at least 0"};
inline constexpr Range kFraction{0.0, 1.0, true, "a number of at least 0 and below 1"};
inline constexpr Range kClosedFraction{0.0, 1.0, false, "a number from 0 to 1"};
inline constexpr Range kEpsilon{1e-30, kFloatMax, false, "a finite number of at least 1e-30"};

// kInvalid: "descent.toml line N: text".
Error invalid_at(const toml::node& node, const std::string& text);
// A value for people: one line, not long.
std::string shown(const toml::node& node);

// kInvalid: "KEY is VALUE; it must be RANGE".
Result<double> number(const toml::node& node, const std::string& key, const Range& range);
// An integer from least to 10^15, which a double holds exactly.
Result<std::uint64_t> whole_number(const toml::node& node, const std::string& key, std::uint64_t least);

// Every key of the table is one of `allowed`, which has a space between two.
Result<void> check_keys(const toml::table& table, const std::string& name, std::string_view allowed);
// The table [name], or null where there is none.
Result<const toml::table*> section(const toml::table& root, const char* name);

}  // namespace gradfs::toml_reading
