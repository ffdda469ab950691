#include "tools/fsctl/output.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace gradfs::fsctl {

void note(const std::string& line) { std::fprintf(stderr, "fsctl: %s\n", printable(line).c_str()); }

std::string line_of(const Error& error) {
  return error.detail.empty() ? std::string(to_text(error.code)) : error.detail;
}

int fail(const Error& error) {
  note(line_of(error));
  return 1;
}

int fail_usage(const std::string& line) {
  note(line);
  return kExitUsage;
}

std::string printable(const std::string& text) {
  std::string out = text;
  for (char& c : out) {
    if (c == '\n') {
      c = ' ';
    } else if (static_cast<unsigned char>(c) < 32 || c == 127) {
      c = '?';
    }
  }
  return out;
}

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::string cell = printable(row[i]);
      if (i + 1 < row.size()) cell.resize(widths[i] + 2, ' ');
      line += cell;
    }
    std::printf("%s\n", line.c_str());
  }
}

std::string format_id(std::uint64_t id) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(id));
  return text;
}

std::string format_time(std::int64_t time_ns) {
  const std::time_t seconds = static_cast<std::time_t>(time_ns / 1'000'000'000);
  std::tm parts{};
  char text[32];
  ::localtime_r(&seconds, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string format_count(std::uint64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t i = text.size(); i > 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

}  // namespace gradfs::fsctl
