// Meeting points for coroutines of one executor. None of them may be touched from another thread, except
// where a comment says so (use Executor::post).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "fs/net/executor.h"

namespace gradfs {

// Wakes all who wait. A waiter that comes after notify_all() waits for the next one: check the condition
// first.
class Notify {
 public:
  explicit Notify(Executor& executor);
  ~Notify();
  Notify(const Notify&) = delete;
  Notify& operator=(const Notify&) = delete;
  void notify_all();
  // true: notified; false: `timeout_ns` passed (negative: no limit).
  Task<bool> wait(std::int64_t timeout_ns);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with those who wait
};

// First come, first served. Lock is RAII; it must not outlive the mutex.
class AsyncMutex {
 public:
  explicit AsyncMutex(Executor& executor) : notify_(executor) {}
  class Lock {
   public:
    explicit Lock(AsyncMutex* mutex) : mutex_(mutex) {}
    Lock(Lock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock() {
      if (mutex_ != nullptr) mutex_->unlock();
    }

   private:
    AsyncMutex* mutex_;
  };
  Task<Lock> lock();

 private:
  void unlock();
  Notify notify_;
  std::uint64_t next_ticket_ = 0;
  std::uint64_t serving_ = 0;
};

// Spawned coroutines that are awaited: after close() nothing new starts, and join() returns when all ended.
// What still runs when an executor goes away is destroyed with it, at its suspension point.
class Scope {
 public:
  explicit Scope(Executor& executor);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  // Starts the task on the executor's thread, at once or soon. false after close().
  bool spawn(Task<> task);
  void close();
  // Waits until everything has ended, at most timeout_ns (negative: no limit); false on timeout.
  Task<bool> join(std::int64_t timeout_ns);
  [[nodiscard]] std::size_t running() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Threads for work that blocks or computes. run() queues `work` and resumes the caller on the executor when
// it is done. The queue is as long as there are callers: bound those. 0 threads: the work runs at once
// (simulation). The destructor waits for the work that was queued.
class WorkerPool {
 public:
  WorkerPool(Executor& executor, unsigned threads);
  ~WorkerPool();
  Task<> run(std::function<void()> work);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradfs
