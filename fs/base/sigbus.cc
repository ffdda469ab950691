#include "fs/base/sigbus.h"

#include <setjmp.h>
#include <signal.h>

#include <mutex>

#include "fs/base/check.h"

namespace gradfs {
namespace {

struct Guard {
  sigjmp_buf back;
  const std::byte* begin;
  const std::byte* end;
  Guard* outer;
};

thread_local Guard* innermost = nullptr;

// Runs on the thread that faulted, so innermost is that thread's own and its frame is still alive.
void on_sigbus(int, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (Guard* guard = innermost; guard != nullptr; guard = guard->outer) {
    if (address >= guard->begin && address < guard->end) {
      innermost = guard->outer;
      siglongjmp(guard->back, 1);
    }
  }
  // Not ours: the access is repeated under the default action, which ends the process with the right signal.
  ::signal(SIGBUS, SIG_DFL);
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  GRADFS_CHECK(::sigaction(SIGBUS, &action, nullptr) == 0);
}

}  // namespace

bool run_guarded(std::span<const std::byte> range, void (*body)(void*), void* context) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  // A fault is reported for an address of its page, so the range is widened to whole pages.
  constexpr std::uintptr_t kPageMask = 4095;
  Guard guard;
  guard.begin = range.data() - (reinterpret_cast<std::uintptr_t>(range.data()) & kPageMask);
  guard.end = range.data() + range.size();
  guard.outer = innermost;
  if (sigsetjmp(guard.back, 0) != 0) return false;
  innermost = &guard;
  body(context);
  innermost = guard.outer;
  return true;
}

}  // namespace gradfs
