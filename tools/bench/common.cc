#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>

#include "tools/bench/bench.h"

namespace gradfs::bench {
namespace {

std::atomic<bool> interrupt{false};
static_assert(std::atomic<bool>::is_always_lock_free);

}  // namespace

bool Row::reached() const {
  if (!aim) return true;
  return aim->at_least ? ratio >= aim->ratio : ratio <= aim->ratio;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool interrupted() { return interrupt.load(std::memory_order_relaxed); }
void request_interrupt() noexcept { interrupt.store(true, std::memory_order_relaxed); }

Result<void> check_interrupted() {
  if (interrupted()) return Error(Errc::kInterrupted, "everything that was started is being taken down");
  return ok();
}

void show_progress(const std::string& text) {
  if (::isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
}

}  // namespace gradfs::bench
