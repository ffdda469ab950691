#include "trainer/look_ahead.h"

#include <cstddef>

#include "fs/base/check.h"

namespace gradfs::trainer {

const float* LookAhead::at(std::span<const float> now) {
  if (before_.empty()) {
    before_.assign(now.begin(), now.end());
    ahead_.resize(now.size());
    return now.data();
  }
  GRADFS_CHECK(before_.size() == now.size());
  const float* __restrict from = now.data();
  float* __restrict before = before_.data();
  float* __restrict ahead = ahead_.data();
  const float factor = factor_;
  for (std::size_t i = 0; i < now.size(); ++i) {
    const float value = from[i];
    ahead[i] = value + factor * (value - before[i]);
    before[i] = value;
  }
  return ahead;
}

}  // namespace gradfs::trainer
