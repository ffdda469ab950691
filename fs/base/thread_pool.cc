#include "fs/base/thread_pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gradfs {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

constexpr std::uint64_t kOpen = 1ULL << 31;
constexpr std::uint64_t kJoinedMask = kOpen - 1;

std::uint64_t loop_of(std::uint64_t state) { return state >> 32; }

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

void ThreadPool::begin(std::size_t count, Call call, void* context) {
  callers_.lock();  // until end(), on this thread
  call_ = call;
  context_ = context;
  count_ = count;
  next_.store(0);
  if (count > 1 && !threads_.empty()) {
    {
      const std::lock_guard lock(mutex_);
      state_.store((loop_of(state_.load()) + 1) << 32 | kOpen);
    }
    started_.notify_all();
  }
}

void ThreadPool::end() {
  take_indices(0);
  state_.fetch_and(~kOpen);
  wait_for_joined();
  callers_.unlock();
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
  while (join_loop(seen)) {
    take_indices(thread);
    const std::uint64_t left = state_.fetch_sub(1) - 1;
    if ((left & (kOpen | kJoinedMask)) == 0) {
      const std::lock_guard lock(mutex_);
      finished_.notify_all();
    }
  }
}

// Waits for a loop after `seen` and joins it. false: the pool is ending.
bool ThreadPool::join_loop(std::uint64_t& seen) {
  auto until = std::chrono::steady_clock::now() + kSpin;
  for (;;) {
    std::uint64_t state = state_.load();
    if (loop_of(state) != seen && (state & kOpen) != 0) {
      if (!state_.compare_exchange_weak(state, state + 1)) continue;
      seen = loop_of(state);
      return true;
    }
    if (stopping_.load()) return false;
    if (std::chrono::steady_clock::now() < until) {
      relax();
      continue;
    }
    std::unique_lock lock(mutex_);
    started_.wait(lock, [&] {
      const std::uint64_t now = state_.load();
      return stopping_.load() || (loop_of(now) != seen && (now & kOpen) != 0);
    });
  }
}

void ThreadPool::wait_for_joined() {
  const auto is_empty = [this] { return (state_.load() & kJoinedMask) == 0; };
  const auto until = std::chrono::steady_clock::now() + kSpin;
  while (std::chrono::steady_clock::now() < until) {
    if (is_empty()) return;
    relax();
  }
  std::unique_lock lock(mutex_);
  finished_.wait(lock, is_empty);
}

}  // namespace gradfs
