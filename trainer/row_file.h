// Rows of numbers that stay in their file: what csv and npy data sets are made of.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fs/base/fd.h"
#include "trainer/dataset.h"

namespace gradfs::trainer {

// How a number lies in a file; little-endian.
enum class NumberType : std::uint8_t { kF32, kF64, kU8, kI8, kU16, kI16, kU32, kI32, kU64, kI64 };
std::size_t bytes_of(NumberType type) noexcept;

// Which rows of a file are a data set's.
enum class RowChoice : std::uint8_t {
  kAll,
  kTraining,  // where there is no file for testing: all but each tenth,
  kTesting,   // and each tenth
};
inline constexpr std::size_t kTestingPeriod = 10;

struct RowFile {
  std::shared_ptr<const UniqueFd> fd;
  std::string path;  // for errors
  std::uint64_t data_start = 0;
  NumberType type = NumberType::kF32;  // kU8 is taken as pixels: between 0 and 1
  std::size_t features = 0;
  std::shared_ptr<const std::vector<std::uint8_t>> labels;  // of all rows
};

// kInvalid: no rows are left. Rows are read where they lie whenever they are wanted; only labels are in
// memory.
Result<std::unique_ptr<Samples>> open_row_file(RowFile file, RowChoice choice);

}  // namespace gradfs::trainer
