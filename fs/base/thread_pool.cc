#include "fs/base/thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gradfs {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(std::size_t threads) {
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
  const std::lock_guard caller(callers_);
  call_ = call;
  context_ = context;
  count_ = count;
  next_.store(0);
  busy_.store(threads_.size());
  {
    const std::lock_guard lock(mutex_);
    loop_.fetch_add(1);
  }
  started_.notify_all();
  take_indices(0);
  wait_for_threads();
}

void ThreadPool::take_indices(std::size_t thread) {
  for (;;) {
    const std::size_t index = next_.fetch_add(1);
    if (index >= count_) return;
    call_(context_, index, thread);
  }
}

void ThreadPool::serve(std::size_t thread) {
  std::uint64_t seen = 0;
  while (wait_for_loop(seen)) {
    ++seen;
    take_indices(thread);
    if (busy_.fetch_sub(1) == 1) {
      const std::lock_guard lock(mutex_);
      finished_.notify_all();
    }
  }
}

// false: the pool is ending. Loops are numbered without gaps, because each waits for all threads.
bool ThreadPool::wait_for_loop(std::uint64_t seen) {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  while (std::chrono::steady_clock::now() < until) {
    if (stopping_.load()) return false;
    if (loop_.load() != seen) return true;
    relax();
  }
  std::unique_lock lock(mutex_);
  started_.wait(lock, [&] { return stopping_.load() || loop_.load() != seen; });
  return loop_.load() != seen;
}

void ThreadPool::wait_for_threads() {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  while (std::chrono::steady_clock::now() < until) {
    if (busy_.load() == 0) return;
    relax();
  }
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [&] { return busy_.load() == 0; });
}

}  // namespace gradfs
