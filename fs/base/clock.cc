#include "fs/base/clock.h"

#include <sys/random.h>
#include <ctime>

#include "fs/base/check.h"

namespace gradfs {
namespace {

std::int64_t read_clock(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return std::int64_t{now.tv_sec} * kSecond_ns + now.tv_nsec;
}

}  // namespace

std::int64_t real_wall_ns() { return read_clock(CLOCK_REALTIME); }
std::int64_t real_now_ns() { return read_clock(CLOCK_MONOTONIC); }

std::uint64_t SystemRandom::next_u64() {
  std::uint64_t value = 0;
  GRADFS_CHECK(::getrandom(&value, sizeof value, 0) == sizeof value);
  return value;
}

std::uint64_t SeededRandom::next_u64() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace gradfs
