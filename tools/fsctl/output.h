// What fsctl prints: one line for an error, tables and JSON on stdout.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::fsctl {

inline constexpr int kExitUsage = 2;

// The one line for an error: its detail, or the code's text where there is none.
std::string line_of(const Error& error);
// "fsctl: LINE" on stderr. Returns 1.
int fail(const Error& error);
// The same for wrong usage. Returns 2.
int fail_usage(const std::string& line);
// "fsctl: LINE" on stderr, for what is not an error.
void note(const std::string& line);

// Columns as wide as their longest cell; the first row is the heading. Control characters become '?'.
void print_table(const std::vector<std::vector<std::string>>& rows);

std::string format_id(std::uint64_t id);        // 16 hex digits
std::string format_time(std::int64_t time_ns);  // 2026-01-31 12:00:00, local
std::string printable(const std::string& text);
// "1,863,690"
std::string format_count(std::uint64_t count);

}  // namespace gradfs::fsctl
