// A report as JSON (the file of --json), as a table for people, and as Markdown for docs/performance.md.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fs/base/result.h"
#include "tools/bench/bench.h"

namespace gradfs::bench {

// {"bench", "machine": {"kernel", "processors", "model", "memory_bytes"}, "version", "quick", "notes": [..],
//  "rows": [{"name", "unit", "gradfs", "reference_name", "reference", "ratio", "also": {..}, "repetitions",
//  "aim", "note"}]}
// aim: null, or {"at_least": 0.97, "reached": true}, or {"at_most": ..., "reached": ...}. gradfs and
// reference: medians.
nlohmann::json to_json(const Report& report, bool quick);
std::string to_table(const Report& report);
std::string to_markdown(const Report& report);

Result<void> write_json(const std::string& path, const nlohmann::json& document);

}  // namespace gradfs::bench
