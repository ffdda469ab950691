#include "trainer/float_array.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1; older C libraries do not name it
#endif

namespace gradfs::trainer {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kPage = 4096;

}  // namespace

FloatArray& FloatArray::operator=(FloatArray&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(data_, other.data_);
  std::swap(count_, other.count_);
  return *this;
}

FloatArray::~FloatArray() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_bytes_);
}

Result<FloatArray> FloatArray::make_private(std::size_t count) {
  GRADFS_TRY(FloatArray array, map(count, MAP_PRIVATE | MAP_ANONYMOUS, -1));
  ::madvise(array.data_, count * sizeof(float), MADV_HUGEPAGE);
  return array;
}

Result<FloatArray> FloatArray::make_shared(std::size_t count) {
  return map(count, MAP_SHARED | MAP_ANONYMOUS, -1);
}

Result<FloatArray> FloatArray::map_shared(const UniqueFd& fd, std::size_t count) {
  struct stat status{};
  const auto bytes = static_cast<off_t>(count * sizeof(float));
  if (::fstat(fd.get(), &status) != 0) return errno_error("fstat");
  if (status.st_size < bytes && ::ftruncate(fd.get(), bytes) != 0) return errno_error("ftruncate");
  return map(count, MAP_SHARED, fd.get());
}

Result<FloatArray> FloatArray::map(std::size_t count, int flags, int fd) {
  const bool is_file = fd >= 0;
  const std::size_t bytes = (count * sizeof(float) + kPage - 1) / kPage * kPage;
  FloatArray array;
  array.mapped_bytes_ = is_file || bytes < kHugePage ? bytes : bytes + kHugePage;
  void* mapping = ::mmap(nullptr, array.mapped_bytes_, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (mapping == MAP_FAILED) return errno_error("mmap of " + std::to_string(bytes) + " bytes");
  array.mapping_ = mapping;
  array.count_ = count;
  array.data_ = static_cast<float*>(mapping);
  if (array.mapped_bytes_ == bytes) return array;
  const auto start = reinterpret_cast<std::uintptr_t>(mapping);
  array.data_ = reinterpret_cast<float*>((start + kHugePage - 1) / kHugePage * kHugePage);
  if ((flags & MAP_SHARED) != 0) {
    // Shared memory gets huge pages only so, whatever the system's setting. Without them it is slower.
    ::madvise(array.data_, bytes / kHugePage * kHugePage, MADV_POPULATE_WRITE);
    ::madvise(array.data_, bytes / kHugePage * kHugePage, MADV_COLLAPSE);
  }
  return array;
}

}  // namespace gradfs::trainer
