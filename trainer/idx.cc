#include "trainer/idx.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kDimensionsMax = 4;
constexpr std::uint8_t kUnsignedBytes = 8;

Error invalid(const std::string& why) { return Error(Errc::kInvalid, why); }

std::uint32_t big_endian(std::span<const std::byte> bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(bytes[i]);
  return value;
}

}  // namespace

Result<IdxArray> parse_idx(std::span<const std::byte> content) {
  if (content.size() < 4) return invalid("too short for an IDX file");
  const auto byte_at = [&](std::size_t i) { return std::to_integer<std::uint8_t>(content[i]); };
  if (byte_at(0) == 0x1f && byte_at(1) == 0x8b) return invalid("is compressed: gunzip it");
  if (byte_at(0) != 0 || byte_at(1) != 0) return invalid("not an IDX file (wrong magic number)");
  if (byte_at(2) != kUnsignedBytes) return invalid("an IDX file, but not of unsigned bytes");
  const std::size_t dimensions = byte_at(3);
  if (dimensions == 0 || dimensions > kDimensionsMax) {
    return invalid("an IDX file with " + std::to_string(dimensions) + " dimensions");
  }
  const std::size_t start = 4 + 4 * dimensions;
  if (content.size() < start) return invalid("ends inside its header");

  IdxArray array;
  std::uint64_t count = 1;
  for (std::size_t i = 0; i < dimensions; ++i) {
    const std::uint32_t size = big_endian(content.subspan(4 + 4 * i));
    if (size == 0) return invalid("holds nothing (a size of 0)");
    count *= size;  // both factors are below 2^33: no overflow before the check
    if (count > kIdxBytesMax) return invalid("sizes beyond " + std::to_string(kIdxBytesMax) + " bytes");
    array.shape.push_back(size);
  }
  const std::uint64_t present = content.size() - start;
  if (present < count) {
    return invalid("truncated: " + std::to_string(present) + " of " + std::to_string(count) + " bytes");
  }
  if (present > count) return invalid(std::to_string(present - count) + " bytes too long");
  const auto* first = reinterpret_cast<const std::uint8_t*>(content.data()) + start;
  array.data.assign(first, first + count);
  return array;
}

Result<IdxArray> read_idx(const std::string& path, std::size_t dimensions) {
  GRADFS_TRY(UniqueFd fd, open_file(path, O_RDONLY));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return errno_error(path);
  if (!S_ISREG(status.st_mode)) return invalid(path + ": not a regular file");
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (bytes > kIdxBytesMax) return Error(Errc::kTooBig, path);
  std::vector<std::byte> content(bytes);
  if (Result<void> read = read_fully_at(fd.get(), content, 0); !read) {
    return Error(read.error().code, path + ": " + read.error().detail);
  }
  Result<IdxArray> array = parse_idx(content);
  if (!array) return invalid(path + ": " + array.error().detail);
  if (array.value().shape.size() != dimensions) {
    return invalid(path + ": has " + std::to_string(array.value().shape.size()) + " dimensions instead of " +
                   std::to_string(dimensions));
  }
  return array;
}

}  // namespace gradfs::trainer
