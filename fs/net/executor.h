// Executor: one thread, one event loop. Everything that is spawned on it runs on that thread, so coroutines
// of one executor need no locks. The servers and the mount each have one.
//
// A simulated executor has virtual time: nothing sleeps; advance() moves the clock to the next timer and
// fires it. Whatever is built on Clock, Notify and Transport runs unchanged on either.
#pragma once

#include <functional>
#include <memory>

#include "fs/base/clock.h"
#include "fs/base/task.h"

namespace gradfs {

class Executor {
 public:
  enum class Time { kReal, kSimulated };
  explicit Executor(Time time = Time::kReal);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs until stop(). Call from the thread that owns the executor.
  void run();
  // Runs what is ready, without waiting; returns how many handlers ran.
  std::size_t poll();
  // Ends run() after the handler in progress. Any thread. A graceful shutdown first ends scopes, then stops.
  void stop();
  // Runs `work` on the executor's thread. Any thread.
  void post(std::function<void()> work);
  // The clock of this executor; sleeps are its timers.
  Clock& clock();
  // Simulated only: fires the earliest timer. false: there is none.
  bool advance();
  // Calls `handler` on the executor's thread at the first SIGTERM or SIGINT.
  void on_termination(std::function<void()> handler);
  // Calls `handler` on the executor's thread whenever fd can be read, until it returns false. The fd stays
  // the caller's and must outlive the executor's run.
  void on_readable(int fd, std::function<bool()> handler);

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// One place where one coroutine waits: the timer under Notify and Clock.
class Waiter {
 public:
  explicit Waiter(Executor& executor);
  ~Waiter();
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  // true: wake() was called, before or while waiting; false: timeout_ns passed (negative: no limit).
  Task<bool> wait(std::int64_t timeout_ns);
  void wake();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradfs
