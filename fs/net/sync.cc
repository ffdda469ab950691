#include "fs/net/sync.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <condition_variable>
#include <deque>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "fs/net/executor_impl.h"

namespace gradfs {
namespace asio = boost::asio;

struct Notify::Impl {
  explicit Impl(Executor& e) : executor(e) {}
  Executor& executor;
  std::list<Waiter*> waiters;
};

Notify::Notify(Executor& executor) : impl_(std::make_shared<Impl>(executor)) {}
Notify::~Notify() = default;

void Notify::notify_all() {
  std::list<Waiter*> waiters;
  waiters.swap(impl_->waiters);
  for (Waiter* waiter : waiters) waiter->wake();
}

Task<bool> Notify::wait(std::int64_t timeout_ns) {
  // The place in the list must not outlive the waiter, also where the executor destroys this coroutine
  // unfinished.
  struct Place {
    explicit Place(std::shared_ptr<Impl> list) : impl(std::move(list)), waiter(impl->executor) {
      impl->waiters.push_back(&waiter);
    }
    ~Place() {
      if (!notified) impl->waiters.remove(&waiter);
    }
    std::shared_ptr<Impl> impl;
    Waiter waiter;
    bool notified = false;
  };
  Place place(impl_);
  place.notified = co_await place.waiter.wait(timeout_ns);
  co_return place.notified;
}

Task<AsyncMutex::Lock> AsyncMutex::lock() {
  const std::uint64_t ticket = next_ticket_++;
  while (serving_ != ticket) co_await notify_.wait(-1);
  co_return Lock(this);
}

void AsyncMutex::unlock() {
  ++serving_;
  notify_.notify_all();
}

struct Scope::Impl {
  explicit Impl(Executor& e) : executor(e), ended(e) {}
  Executor& executor;
  Notify ended;
  std::size_t running = 0;
  bool closed = false;
};

Scope::Scope(Executor& executor) : impl_(std::make_shared<Impl>(executor)) {}
Scope::~Scope() = default;

bool Scope::spawn(Task<> task) {
  if (impl_->closed) return false;
  ++impl_->running;
  asio::co_spawn(impl_->executor.impl().context, std::move(task),
                 [impl = std::weak_ptr(impl_)](const std::exception_ptr& failure) {
                   if (failure) std::rethrow_exception(failure);
                   const auto alive = impl.lock();
                   if (!alive) return;
                   --alive->running;
                   alive->ended.notify_all();
                 });
  return true;
}

void Scope::close() { impl_->closed = true; }

Task<bool> Scope::join(std::int64_t timeout_ns) {
  const auto impl = impl_;
  Clock& clock = impl->executor.clock();
  const std::int64_t deadline = clock.now_ns() + timeout_ns;
  while (impl->running > 0) {
    const std::int64_t left = timeout_ns < 0 ? -1 : std::max<std::int64_t>(0, deadline - clock.now_ns());
    if (left == 0) co_return false;
    co_await impl->ended.wait(left);
  }
  co_return true;
}

std::size_t Scope::running() const { return impl_->running; }

// The threads take work in the order of coming; who waits is resumed by a post to the executor.
struct WorkerPool::Impl {
  Impl(Executor& e, unsigned threads) : executor(e) {
    for (unsigned i = 0; i < threads; ++i) workers.emplace_back([this] { serve(); });
  }
  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      ending = true;
    }
    ready.notify_all();
    for (auto& worker : workers) worker.join();
  }
  void serve() {
    for (;;) {
      std::unique_lock lock(mutex);
      ready.wait(lock, [this] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      auto job = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      job();
    }
  }

  Executor& executor;
  std::mutex mutex;  // the only lock here; protects queue and ending
  std::condition_variable ready;
  std::deque<std::function<void()>> queue;
  bool ending = false;
  std::vector<std::thread> workers;
};

WorkerPool::WorkerPool(Executor& executor, unsigned threads)
    : impl_(std::make_unique<Impl>(executor, threads)) {}
WorkerPool::~WorkerPool() = default;

Task<> WorkerPool::run(std::function<void()> work) {
  // Shared with the posted wake-up: whoever ends last frees it, on the executor's thread. What `work` owns
  // goes before its caller goes on.
  auto waiter = std::make_shared<Waiter>(impl_->executor);
  auto job = [&executor = impl_->executor, done = waiter, work = std::move(work)]() mutable {
    work();
    work = nullptr;
    executor.post([done = std::move(done)] { done->wake(); });
  };
  if (impl_->workers.empty()) {  // simulation: no threads, nothing runs beside
    job();
  } else {
    {
      const std::lock_guard lock(impl_->mutex);
      impl_->queue.push_back(std::move(job));
    }
    impl_->ready.notify_one();
  }
  co_await waiter->wait(-1);
}

}  // namespace gradfs
