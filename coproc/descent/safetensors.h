// The safetensors format: a strict parser of the header, and a writer of headers.
//
//   file   = length header data
//   length = u64, little-endian: bytes of header, at most 100,000,000
//   header = a JSON object that begins with '{', then any number of spaces
//   data   = the tensors' bytes, without holes or overlap, up to the end of the file
//
// Whatever breaks a rule is kInvalid with one line that says which. No function here is bound to a thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/result.h"

namespace gradfs {

inline constexpr std::uint64_t kSafetensorsHeaderMax = 100'000'000;
inline constexpr std::uint64_t kSafetensorsAlignment = 4096;

enum class Dtype : std::uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64
};
std::string_view to_text(Dtype dtype) noexcept;  // "F32"
std::uint64_t dtype_bytes(Dtype dtype) noexcept;

using Shape = std::vector<std::uint64_t>;
std::string to_text(const Shape& shape);  // "[1024, 784]"; "[]" for a scalar

struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  std::uint64_t begin = 0;  // byte offsets in the data, not in the file
  std::uint64_t end = 0;
  [[nodiscard]] std::uint64_t count() const noexcept { return (end - begin) / dtype_bytes(dtype); }
};

using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // in the order of their data; names are unique
  Metadata metadata;                 // __metadata__, empty if there is none
  std::uint64_t data_start = 0;      // offset of the data in the file: 8 + length
  std::uint64_t data_bytes = 0;
};

// json: the header without its length. file_bytes: the size of the whole file.
Result<SafetensorsHeader> parse_safetensors(std::string_view json, std::uint64_t file_bytes);

// Takes the size from fstat and reads the header by pread into private memory, so that a writer who changes
// the file meanwhile cannot change what has been checked.
Result<SafetensorsHeader> read_safetensors(int fd);

// The first bytes of a file whose tensors follow one another in the given order (begin and end of the entries
// are ignored and counted anew): length, JSON, spaces, so that the data starts at a multiple of `alignment`.
Result<std::string> format_safetensors(std::span<const TensorEntry> tensors, const Metadata& metadata = {},
                                       std::uint64_t alignment = kSafetensorsAlignment);

// Elements of a shape; kInvalid if it overflows 64 bits.
Result<std::uint64_t> element_count(const Shape& shape);

}  // namespace gradfs
