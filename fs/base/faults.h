// Fault points: named places where a test makes the process fail. A point counts how often it is reached, and
// when it is armed it kills the process, returns an error or waits.
//
//   GRADFS_TRYV(GRADFS_FAULT("worker.push.committed"));      // in a function that returns a Result
//   GRADFS_CO_TRYV(GRADFS_FAULT("worker.push.committed"));   // in a coroutine
//   (void)GRADFS_FAULT("worker.push.answered");              // where no error can be returned: kill and
//   delay only
//
// The environment arms them, read once at the first point that is reached:
//   GRADFS_FAULTS="worker.push.committed=kill@3,master.commit=error@1,worker.apply=delay:50@2"
//   kill          SIGKILL to the own process, so that nothing is flushed or cleaned up
//   error         the point returns kIo, detail "injected at NAME"
//   delay:MS      the calling thread sleeps
//   @N            at the N-th time that the point is reached, once; @N+ from then on every time; without @ it
//   is @1
//
// In a process with nothing armed and nothing counted a point costs one relaxed load. Counting begins with
// arming, or with count_faults(true). Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/result.h"

namespace gradfs {

struct FaultPointState {
  std::string name;
  std::uint64_t reached = 0;
  std::string armed;  // "kill@3"; "" for none
};

// Arms as GRADFS_FAULTS does, in addition to what is armed. kInvalid names the part that cannot be read, and
// then nothing is armed. A point that is armed again forgets its count.
Result<void> arm_faults(std::string_view text);
// Disarms everything, forgets the counts and stops counting.
void disarm_faults();
// Counts points without arming any: for status, and to learn which points a run reaches.
void count_faults(bool on);
// Every point that was armed, or reached while counting, in order of name.
std::vector<FaultPointState> list_faults();

namespace internal {

// 1 until the environment was read; then 1 while anything is armed or counted, else 0.
extern std::atomic<int> faults_active;
Result<void> reach_fault(const char* name);

}  // namespace internal
}  // namespace gradfs

// Result<void>. `name` is a literal, SUBSYSTEM.OPERATION.MOMENT.
#define GRADFS_FAULT(name)                                                \
  (::gradfs::internal::faults_active.load(std::memory_order_relaxed) == 0 \
       ? ::gradfs::Result<void>(::gradfs::ok())                           \
       : ::gradfs::internal::reach_fault(name))
