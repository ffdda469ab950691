// What the processes of a run share: a page in which the supervisor tells them what to do, and drivers and
// servers what they have done.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "fs/base/fd.h"
#include "fs/base/result.h"

namespace gradfs::trainer {

inline constexpr std::size_t kWorkersMax = 1024;

struct RunControl {
  // Written by the supervisor.
  std::atomic<bool> go{false};
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> deadline_ns{0};  // monotonic; 0 for none. Set before go.
  std::atomic<bool> gone[kWorkersMax] = {};  // the worker has ended
  std::atomic<std::uint32_t> wanted_copy{
      0};  // raised by one: the supervisor wants the parameters (allreduce)

  // Written by the process that updates the model.
  std::atomic<std::uint64_t> version{0};    // updates that the model has taken
  std::atomic<std::uint32_t> made_copy{0};  // the wanted_copy that was last answered
  std::atomic<bool> left{false};            // no more is answered: the last copy has been made
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

// Owns the page. Not movable: others hold its address. A forked process shares it; one that is not forked
// opens the descriptor through /proc.
class SharedControl {
 public:
  static Result<std::unique_ptr<SharedControl>> make();
  static Result<std::unique_ptr<SharedControl>> open(const std::string& path);
  ~SharedControl();
  SharedControl(const SharedControl&) = delete;
  SharedControl& operator=(const SharedControl&) = delete;
  RunControl& operator*() const noexcept { return *control_; }
  RunControl* operator->() const noexcept { return control_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  SharedControl(UniqueFd fd, RunControl* control) : fd_(std::move(fd)), control_(control) {}
  UniqueFd fd_;
  RunControl* control_;
};

}  // namespace gradfs::trainer
