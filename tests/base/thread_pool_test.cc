#include "fs/base/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

namespace gradfs {
namespace {

TEST(ThreadPoolTest, EveryIndexOnceWhoeverTakesIt) {
  for (const std::size_t threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const std::size_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> taken(count);
      std::atomic<std::size_t> highest{0};
      pool.parallel_for(count, [&](std::size_t index, std::size_t thread) {
        ++taken[index];
        std::size_t known = highest;
        while (thread > known && !highest.compare_exchange_weak(known, thread)) {
        }
      });
      for (const auto& times : taken) EXPECT_EQ(times, 1);
      EXPECT_LT(highest, threads);
    }
  }
}

TEST(ThreadPoolTest, ManyCallersTakeTurns) {
  ThreadPool pool(3);
  std::atomic<std::uint64_t> sum{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int loop = 0; loop < 500; ++loop) {
        std::uint64_t part = 0;  // of thread 0, which is this caller
        std::atomic<std::uint64_t> others{0};
        pool.parallel_for(10, [&](std::size_t index, std::size_t thread) {
          if (thread == 0) {
            part += index;
          } else {
            others += index;
          }
        });
        sum += part + others;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum, 4U * 500U * 45U);
}

TEST(ThreadPoolTest, ALoopBeginsBeforeItsCallerTakesPart) {
  ThreadPool pool(2);
  std::atomic<std::size_t> done{0};
  const auto body = [&](std::size_t, std::size_t thread) {
    EXPECT_EQ(thread, 1U);
    ++done;
  };
  ThreadPool::Loop loop(pool, 20, body);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (done < 20 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(done, 20U);
  loop.finish();
  loop.finish();  // once
  pool.parallel_for(4, [&](std::size_t, std::size_t) { ++done; });
  EXPECT_EQ(done, 24U);
}

TEST(ThreadPoolTest, ALoopNotFinishedEndsWithItsObject) {
  ThreadPool pool(2);
  std::atomic<std::size_t> done{0};
  {
    const auto body = [&](std::size_t, std::size_t) { ++done; };
    const ThreadPool::Loop loop(pool, 50, body);
  }
  EXPECT_EQ(done, 50U);
}

}  // namespace
}  // namespace gradfs
