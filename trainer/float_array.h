// A large array of floats in pages of its own, in huge ones where the kernel gives them.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::trainer {

// Movable. Begins on a page; all zeros.
class FloatArray {
 public:
  FloatArray() = default;
  FloatArray(FloatArray&& other) noexcept { *this = std::move(other); }
  FloatArray& operator=(FloatArray&& other) noexcept;
  ~FloatArray();

  // Of this process (and, copied on write, of those it forks).
  static Result<FloatArray> make_private(std::size_t count);
  // Shared with the processes that it forks.
  static Result<FloatArray> make_shared(std::size_t count);
  // Shared with whoever maps fd, a memfd that grows as needed.
  static Result<FloatArray> map_shared(const UniqueFd& fd, std::size_t count);

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] float* data() const noexcept { return data_; }
  [[nodiscard]] std::span<float> span() const noexcept { return {data_, count_}; }

 private:
  static Result<FloatArray> map(std::size_t count, int flags, int fd);

  void* mapping_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  float* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace gradfs::trainer
