#include "fs/base/thread_pool.h"

#include <chrono>

#include "fs/base/check.h"

namespace gradfs {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True as soon as done() is, false after about 50 us.
template <class Done>
bool spin_until(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      pause_processor();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

ThreadPool::ThreadPool(std::size_t threads) {
  GRADFS_CHECK(threads >= 1);
  for (std::size_t i = 1; i < threads; ++i) threads_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_.store(true);
  }
  started_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::run(std::size_t count, Call call, void* context) {
  if (count == 0) return;
  const std::lock_guard one_caller(callers_);
  call_ = call;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  if (count == 1 || threads_.empty()) {
    take_indices(0);
    return;
  }
  busy_.store(threads_.size(), std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    loop_.fetch_add(1, std::memory_order_release);
  }
  started_.notify_all();
  take_indices(0);
  wait_for_threads();
}

void ThreadPool::take_indices(std::size_t thread) {
  for (;;) {
    const std::size_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= count_) return;
    call_(context_, index, thread);
  }
}

void ThreadPool::wait_for_threads() {
  const auto finished = [this] { return busy_.load(std::memory_order_acquire) == 0; };
  if (spin_until(finished)) return;
  std::unique_lock lock(mutex_);
  finished_.wait(lock, finished);
}

bool ThreadPool::wait_for_loop(std::uint64_t seen) {
  const auto begun = [&] {
    return loop_.load(std::memory_order_acquire) != seen || stopping_.load(std::memory_order_relaxed);
  };
  if (!spin_until(begun)) {
    std::unique_lock lock(mutex_);
    started_.wait(lock, begun);
  }
  return !stopping_.load(std::memory_order_relaxed);
}

void ThreadPool::serve(std::size_t thread) {
  for (std::uint64_t seen = 0; wait_for_loop(seen); ++seen) {
    take_indices(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const std::lock_guard lock(mutex_);
      finished_.notify_one();
    }
  }
}

}  // namespace gradfs
