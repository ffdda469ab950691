// A fixed number of threads for parallel loops over memory.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace gradfs {

class ThreadPool {
 public:
  // threads: all that take part in a loop, the caller included; at least 1. They live until the destructor.
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] std::size_t threads() const noexcept { return threads_.size() + 1; }

  // Calls body(index, thread) once for each index below count, on all threads, and returns when all calls
  // have returned. thread: 0 .. threads() - 1, fixed for a thread; 0 is the caller. Indices are handed out in
  // rising order. A thread that comes late, because its processor has other work, is not waited for. body
  // must not throw, nor call parallel_for of the same pool. Any thread may call; a second caller waits for
  // the first. After a loop the threads spin for about 50 us before they sleep, so that the next one starts
  // at once.
  template <class Body>
  void parallel_for(std::size_t count, Body&& body) {
    Loop(*this, count, body).finish();
  }
  // The same in two steps: the other threads begin at once, and finish() takes part and returns when all is
  // done. Start and finish it on one thread, which may not start another loop of the pool meanwhile. The body
  // must outlive it.
  class Loop {
   public:
    template <class Body>
    Loop(ThreadPool& pool, std::size_t count, Body& body) : pool_(&pool) {
      pool.begin(count, caller<Body>, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
    }
    ~Loop() { finish(); }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
    void finish() {
      if (pool_ != nullptr) std::exchange(pool_, nullptr)->end();
    }

   private:
    ThreadPool* pool_;
  };

 private:
  using Call = void (*)(void* context, std::size_t index, std::size_t thread);

  template <class Body>
  static void caller(void* context, std::size_t index, std::size_t thread) {
    (*static_cast<Body*>(context))(index, thread);
  }
  void begin(std::size_t count, Call call, void* context);
  void end();
  void serve(std::size_t thread);
  void take_indices(std::size_t thread);
  bool join_loop(std::uint64_t& seen);
  void wait_for_joined();

  std::mutex callers_;  // held for a whole loop; taken before mutex_

  // Written by the caller while no thread is in a loop, read by threads that have joined one.
  Call call_ = nullptr;
  void* context_ = nullptr;
  std::size_t count_ = 0;
  std::atomic<std::size_t> next_{0};

  // Number of the loop << 32 | whether threads may join it | how many are in it.
  std::atomic<std::uint64_t> state_{0};
  std::atomic<bool> stopping_{false};

  std::mutex mutex_;  // of the two conditions only
  std::condition_variable started_;
  std::condition_variable finished_;
  std::vector<std::thread> threads_;
};

}  // namespace gradfs
