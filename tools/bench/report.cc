#include "tools/bench/report.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fs/base/fd.h"
#include "fs/base/size.h"

namespace gradfs::bench {
namespace {

std::string processor_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

nlohmann::json machine() {
  utsname names{};
  ::uname(&names);
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  return {{"kernel", names.release},
          {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)},
          {"model", processor_model()},
          {"memory_bytes", pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))}};
}

std::string machine_line() {
  const nlohmann::json of = machine();
  return of["model"].get<std::string>() + ", " + std::to_string(of["processors"].get<long>()) +
         " processors, " + format_size(of["memory_bytes"].get<std::uint64_t>()) + ", Linux " +
         of["kernel"].get<std::string>();
}

// Three significant digits.
std::string figure(double value) {
  char text[32];
  const double size = std::fabs(value);
  int decimals = 0;
  if (size < 100.0) decimals = size >= 10.0 ? 1 : 2;
  if (size > 0.0 && size < 1.0) decimals = 3;
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string ratio_text(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", ratio);
  return text;
}

std::string aim_text(const Row& row) {
  if (!row.aim) return "";
  return std::string(row.aim->at_least ? ">= " : "<= ") + figure(row.aim->ratio) +
         (row.reached() ? "" : " MISSED");
}

std::string also_text(const Row& row) {
  std::string out;
  for (const auto& [name, value] : row.also) out += (out.empty() ? "" : ", ") + name + " " + figure(value);
  if (!row.note.empty()) out += (out.empty() ? "" : "; ") + row.note;
  return out;
}

using Cells = std::vector<std::string>;

std::vector<Cells> cells(const Report& report) {
  std::vector<Cells> out{{"what", "unit", "gradfs", "reference", "", "ratio", "aim", "n", "also"}};
  for (const Row& row : report.rows) {
    out.push_back({row.name, row.unit, figure(row.gradfs), figure(row.reference), row.reference_name,
                   ratio_text(row.ratio), aim_text(row), std::to_string(row.repetitions), also_text(row)});
  }
  return out;
}

}  // namespace

nlohmann::json to_json(const Report& report, bool quick) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Row& row : report.rows) {
    nlohmann::json aim = nullptr;
    if (row.aim)
      aim = {{row.aim->at_least ? "at_least" : "at_most", row.aim->ratio}, {"reached", row.reached()}};
    rows.push_back({{"name", row.name},
                    {"unit", row.unit},
                    {"gradfs", row.gradfs},
                    {"reference_name", row.reference_name},
                    {"reference", row.reference},
                    {"ratio", row.ratio},
                    {"also", row.also},
                    {"repetitions", row.repetitions},
                    {"aim", aim},
                    {"note", row.note}});
  }
  return {{"bench", report.bench}, {"machine", machine()},  {"version", GRADFS_VERSION},
          {"quick", quick},        {"notes", report.notes}, {"rows", rows}};
}

std::string to_table(const Report& report) {
  const std::vector<Cells> all = cells(report);
  std::vector<std::size_t> widths(all[0].size());
  for (const Cells& line : all) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string out = report.bench + " on " + machine_line() + "\n";
  for (const std::string& note : report.notes) out += "  " + note + "\n";
  for (const Cells& line : all) {
    std::string text;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      const bool number = i == 2 || i == 3 || i == 5 || i == 7;
      text += number ? padding + line[i] : line[i] + padding;
      text += "  ";
    }
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

std::string to_markdown(const Report& report) {
  std::string out = machine_line() + "; medians.\n\n";
  out +=
      "| what | unit | gradfs | reference | | ratio | aim | n | also "
      "|\n|---|---|---:|---:|---|---:|---|---:|---|\n";
  const std::vector<Cells> all = cells(report);
  for (std::size_t i = 1; i < all.size(); ++i) {
    out += "|";
    for (const std::string& cell : all[i]) out += " " + cell + " |";
    out += "\n";
  }
  out += "\n";
  for (const std::string& note : report.notes) out += "- " + note + "\n";
  return out;
}

Result<void> write_json(const std::string& path, const nlohmann::json& document) {
  return replace_text_file(path, document.dump(2) + "\n");
}

}  // namespace gradfs::bench
