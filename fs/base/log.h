// Logging: one logger to stderr, one line an event. Configure once in main.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace gradfs {

// program: put before each line. level: trace, debug, info, warning, error.
void start_logging(const std::string& program, const std::string& level = "info");

}  // namespace gradfs
