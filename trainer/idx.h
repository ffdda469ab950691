// The IDX format of MNIST: arrays of bytes.
//
//   file  = 0 0 type dimensions size{dimensions} data
//   type  = one byte; 8 is unsigned bytes, the only one read here
//   size  = u32, big-endian
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::trainer {

inline constexpr std::uint64_t kIdxBytesMax = std::uint64_t{1} << 32;

struct IdxArray {
  std::vector<std::uint32_t> shape;  // 1 to 4 sizes, none of them zero
  std::vector<std::uint8_t> data;    // row-major; as long as the sizes say

  [[nodiscard]] std::size_t rows() const noexcept { return shape.front(); }
  [[nodiscard]] std::size_t row_bytes() const noexcept { return data.size() / shape.front(); }
};

// content: a whole file. kInvalid with one line that says what is wrong with it.
Result<IdxArray> parse_idx(std::span<const std::byte> content);
// The same for a file; the path is in the error. dimensions: how many sizes it must have.
Result<IdxArray> read_idx(const std::string& path, std::size_t dimensions);

}  // namespace gradfs::trainer
