#include "fs/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace gradfs {

void check_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "bug: %s does not hold at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace gradfs
