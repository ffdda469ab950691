#include "trainer/exchange.h"

#include <algorithm>

#include "fs/base/check.h"

namespace gradfs::trainer {

Result<void> ParameterSource::fetch(std::span<float> out) {
  GRADFS_TRY(const std::span<const float> parameters, current());
  GRADFS_CHECK(out.size() == parameters.size());
  std::ranges::copy(parameters, out.begin());
  return ok();
}

}  // namespace gradfs::trainer
