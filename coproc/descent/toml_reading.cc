#include "coproc/descent/toml_reading.h"

#include <optional>
#include <sstream>

namespace gradfs::toml_reading {

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

Result<double> number(const toml::node& node, const std::string& key, const Range& range) {
  const auto value = node.is_number() ? node.value<double>() : std::nullopt;
  const bool inside =
      value && *value >= range.low && (range.open_high ? *value < range.high : *value <= range.high);
  if (!inside) return invalid_at(node, key + " is " + shown(node) + "; it must be " + range.text);
  return *value;
}

Result<std::uint64_t> whole_number(const toml::node& node, const std::string& key, std::uint64_t least) {
  constexpr std::int64_t kMost = 1'000'000'000'000'000;
  const auto value = node.value_exact<std::int64_t>();
  if (!value || *value < static_cast<std::int64_t>(least) || *value > kMost) {
    return invalid_at(node, key + " is " + shown(node) + "; it must be a whole number of at least " +
                                std::to_string(least));
  }
  return static_cast<std::uint64_t>(*value);
}

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

Result<const toml::table*> section(const toml::table& root, const char* name) {
  const toml::node* node = root.get(name);
  if (node == nullptr) return nullptr;
  if (node->as_table() == nullptr)
    return invalid_at(*node, std::string(name) + " must be a table: write [" + name + "]");
  return node->as_table();
}

}  // namespace gradfs::toml_reading
