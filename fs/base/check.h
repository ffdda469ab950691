// GRADFS_CHECK: a bug ends the process, in release builds too. Never for bad input.
#pragma once

namespace gradfs {
[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;
}

#define GRADFS_CHECK(condition) \
  ((condition) ? void(0) : ::gradfs::check_failed(#condition, __FILE__, __LINE__))
