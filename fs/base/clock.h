// Clock and Random: the seams for time and chance. The real ones are below; the simulated ones, which take a
// seed, are in fs/net/sim.h.
#pragma once

#include <cstdint>

#include "fs/base/task.h"

namespace gradfs {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since 1970, for stored times.
  virtual std::int64_t wall_ns() = 0;
  // Monotonic nanoseconds, for deadlines.
  virtual std::int64_t now_ns() = 0;
  // Returns after duration_ns. Ends early, without an error, when the executor is shut down.
  virtual Task<> sleep_ns(std::int64_t duration_ns) = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual std::uint64_t next_u64() = 0;
};

// getrandom(2).
class SystemRandom final : public Random {
 public:
  std::uint64_t next_u64() override;
};

// splitmix64 (Steele, Lea, Flood 2014): for simulation, and wherever a seed must reproduce a run.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next_u64() override;

 private:
  std::uint64_t state_;
};

inline constexpr std::int64_t kMillisecond_ns = 1'000'000;
inline constexpr std::int64_t kSecond_ns = 1'000'000'000;

// The real times, for programs without a Clock.
std::int64_t real_wall_ns();
std::int64_t real_now_ns();

}  // namespace gradfs
