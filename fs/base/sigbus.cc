#include "fs/base/sigbus.h"

#include <csetjmp>
#include <csignal>
#include <mutex>

namespace gradfs {
namespace {

struct Guard {
  sigjmp_buf back;
  const std::byte* begin = nullptr;
  const std::byte* end = nullptr;
  Guard* outer = nullptr;
};

thread_local Guard* innermost = nullptr;

void on_sigbus(int signal, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (Guard* guard = innermost; guard != nullptr; guard = guard->outer) {
    if (address >= guard->begin && address < guard->end) {
      innermost = guard->outer;
      siglongjmp(guard->back, 1);
    }
  }
  std::signal(signal, SIG_DFL);  // returning runs the access again, and ends the process
}

void install_handler() {
  struct sigaction action{};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

bool run_guarded(std::span<const std::byte> range, void (*body)(void*), void* context) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  Guard guard;
  guard.begin = range.data();
  guard.end = range.data() + range.size();
  guard.outer = innermost;
  if (sigsetjmp(guard.back, 1) != 0) return false;  // with the mask: a runtime may have blocked all signals
  innermost = &guard;
  body(context);
  innermost = guard.outer;
  return true;
}

}  // namespace gradfs
