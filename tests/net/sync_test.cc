#include "fs/net/sync.h"

#include <sys/eventfd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "tests/net/harness.h"

namespace gradfs {
namespace {

class SyncTest : public ExecutorTest {};

TEST_F(SyncTest, NotifyWakesAllWhoWaitAndNobodyLater) {
  run([](SyncTest& t) -> Task<> {
    Notify notify(t.executor_);
    Scope waiters(t.executor_);
    int woken = 0;
    for (int i = 0; i < 5; ++i) {
      waiters.spawn([](Notify& notify, int& woken) -> Task<> {
        EXPECT_TRUE(co_await notify.wait(-1));
        ++woken;
      }(notify, woken));
    }
    notify.notify_all();
    EXPECT_TRUE(co_await waiters.join(kSecond_ns));
    EXPECT_EQ(woken, 5);
    EXPECT_FALSE(co_await notify.wait(5 * kMillisecond_ns));  // the earlier call is past
    notify.notify_all();  // nobody waits: nothing is left of the wait before
  }(*this));
}

TEST_F(SyncTest, NotifyMayGoBeforeThoseWhoWait) {
  run([](SyncTest& t) -> Task<> {
    auto notify = std::make_unique<Notify>(t.executor_);
    Scope waiters(t.executor_);
    waiters.spawn(
        [](Notify& notify) -> Task<> { EXPECT_FALSE(co_await notify.wait(20 * kMillisecond_ns)); }(*notify));
    notify.reset();
    EXPECT_TRUE(co_await waiters.join(kSecond_ns));
  }(*this));
}

TEST_F(SyncTest, MutexIsExclusiveAndServesInOrder) {
  run([](SyncTest& t) -> Task<> {
    AsyncMutex mutex(t.executor_);
    Scope holders(t.executor_);
    std::vector<int> order;
    bool held = false;
    for (int i = 0; i < 20; ++i) {
      holders.spawn([](SyncTest& t, AsyncMutex& mutex, std::vector<int>& order, bool& held, int i) -> Task<> {
        const auto lock = co_await mutex.lock();
        EXPECT_FALSE(held);
        held = true;
        co_await t.executor_.clock().sleep_ns(i % 3 == 0 ? kMillisecond_ns : 0);
        held = false;
        order.push_back(i);
      }(t, mutex, order, held, i));
    }
    EXPECT_TRUE(co_await holders.join(kSecond_ns));
    CO_ASSERT(order.size() == 20);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }(*this));
}

TEST_F(SyncTest, ScopeJoinsWhatItSpawnedAndTakesNothingAfterClose) {
  run([](SyncTest& t) -> Task<> {
    Scope scope(t.executor_);
    EXPECT_TRUE(scope.spawn(t.executor_.clock().sleep_ns(50 * kMillisecond_ns)));
    EXPECT_EQ(scope.running(), 1u);
    EXPECT_FALSE(co_await scope.join(5 * kMillisecond_ns));
    scope.close();
    EXPECT_FALSE(scope.spawn(t.executor_.clock().sleep_ns(0)));
    EXPECT_TRUE(co_await scope.join(-1));
    EXPECT_EQ(scope.running(), 0u);
    EXPECT_TRUE(co_await scope.join(0));
  }(*this));
}

TEST_F(SyncTest, PoolRunsElsewhereAndResumesHere) {
  WorkerPool pool(executor_, 3);
  run([](SyncTest& t, WorkerPool& pool) -> Task<> {
    const auto here = std::this_thread::get_id();
    Scope scope(t.executor_);
    std::atomic<int> sum = 0;
    for (int i = 1; i <= 100; ++i) {
      scope.spawn([](WorkerPool& pool, std::atomic<int>& sum, std::thread::id here, int i) -> Task<> {
        std::function<void()> work = [&sum, here, i] {
          EXPECT_NE(std::this_thread::get_id(), here);
          sum += i;
        };
        co_await pool.run(std::move(work));
        EXPECT_EQ(std::this_thread::get_id(), here);
      }(pool, sum, here, i));
    }
    EXPECT_TRUE(co_await scope.join(kTestLimit_ns));
    EXPECT_EQ(sum.load(), 5050);
  }(*this, pool));
}

TEST_F(SyncTest, PoolWithoutThreadsRunsAtOnce) {
  WorkerPool pool(executor_, 0);
  run([](WorkerPool& pool) -> Task<> {
    const auto here = std::this_thread::get_id();
    std::function<void()> work = [here] { EXPECT_EQ(std::this_thread::get_id(), here); };
    co_await pool.run(std::move(work));
  }(pool));
}

TEST_F(SyncTest, PoolFinishesWhatWasQueuedBeforeItGoes) {
  std::atomic<int> done = 0;
  {
    WorkerPool pool(executor_, 1);
    for (int i = 0; i < 10; ++i) {
      scope_.spawn([](WorkerPool& pool, std::atomic<int>& done) -> Task<> {
        std::function<void()> work = [&done] {
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
          ++done;
        };
        co_await pool.run(std::move(work));
      }(pool, done));
    }
    executor_.poll();
  }
  EXPECT_EQ(done.load(), 10);
}

TEST_F(SyncTest, PostComesFromAnyThread) {
  int ran = 0;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) executor_.post([&ran] { ++ran; });
    executor_.post([&] { executor_.stop(); });
  });
  executor_.run();
  other.join();
  EXPECT_EQ(ran, 1000);
}

TEST_F(SyncTest, ReadableIsToldUntilTheHandlerHasEnough) {
  UniqueFd event(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  int called = 0;
  executor_.on_readable(event.get(), [&] {
    eventfd_t value = 0;
    EXPECT_EQ(::eventfd_read(event.get(), &value), 0);
    return ++called < 3;
  });
  run([](SyncTest& t, int fd) -> Task<> {
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(::eventfd_write(fd, 1), 0);
      co_await t.executor_.clock().sleep_ns(5 * kMillisecond_ns);
    }
  }(*this, event.get()));
  EXPECT_EQ(called, 3);
}

TEST_F(SyncTest, TerminationIsAnEvent) {
  int called = 0;
  executor_.on_termination([&] { ++called; });
  run([](SyncTest& t) -> Task<> {
    ::raise(SIGTERM);
    co_await t.executor_.clock().sleep_ns(50 * kMillisecond_ns);
  }(*this));
  EXPECT_EQ(called, 1);
}

TEST(VirtualTime, MovesToTheNextTimerOnly) {
  Executor executor(Executor::Time::kSimulated);
  Scope scope(executor);
  std::vector<int> order;
  const std::int64_t start_ns = executor.clock().now_ns();
  for (const int seconds : {3, 1, 2, 1}) {
    scope.spawn([](Executor& executor, std::vector<int>& order, int seconds) -> Task<> {
      co_await executor.clock().sleep_ns(seconds * kSecond_ns);
      order.push_back(seconds);
    }(executor, order, seconds));
  }
  executor.poll();
  while (executor.advance()) executor.poll();
  EXPECT_EQ(order, (std::vector<int>{1, 1, 2, 3}));
  EXPECT_EQ(executor.clock().now_ns() - start_ns, 3 * kSecond_ns);
  EXPECT_EQ(executor.clock().wall_ns(), executor.clock().now_ns());
}

TEST(VirtualTime, AWokenWaiterLeavesNoTimerBehind) {
  Executor executor(Executor::Time::kSimulated);
  Scope scope(executor);
  Notify notify(executor);
  bool woken = false;
  scope.spawn(
      [](Notify& notify, bool& woken) -> Task<> { woken = co_await notify.wait(kSecond_ns); }(notify, woken));
  executor.poll();
  notify.notify_all();
  executor.poll();
  EXPECT_TRUE(woken);
  EXPECT_FALSE(executor.advance());
}

TEST(VirtualTime, WhoWaitsIsDestroyedWithTheExecutor) {
  auto executor = std::make_unique<Executor>(Executor::Time::kSimulated);
  auto mutex = std::make_unique<AsyncMutex>(*executor);
  Scope scope(*executor);
  for (int i = 0; i < 3; ++i) {
    scope.spawn([](Executor& executor, AsyncMutex& mutex) -> Task<> {
      const auto lock = co_await mutex.lock();
      co_await executor.clock().sleep_ns(kSecond_ns);
    }(*executor, *mutex));
  }
  executor->poll();
  executor.reset();
}

}  // namespace
}  // namespace gradfs
