#include "fs/master/sync_gate.h"

namespace gradfs {
namespace {

constexpr std::int64_t kSyncEvery_ns = 100 * kMillisecond_ns;
constexpr std::int64_t kWaitMax_ns = 60 * kSecond_ns;

}  // namespace

SyncGate::SyncGate(Executor& executor, Store& store, unsigned threads,
                   std::function<void(const Error&)> failed)
    : executor_(executor),
      store_(store),
      pool_(executor, threads),
      failed_handler_(std::move(failed)),
      work_(executor),
      finished_(executor) {}

void SyncGate::changed(std::uint64_t index) {
  const bool was_clean = changed_ == synced_;
  changed_ = index;
  if (was_clean && changed_ != synced_) work_.notify_all();
}

Task<Result<void>> SyncGate::wait() {
  const std::uint64_t index = changed_;
  const std::int64_t deadline_ns = executor_.clock().now_ns() + kWaitMax_ns;
  while (synced_ < index) {
    if (failed_) co_return *failed_;
    const std::int64_t left_ns = deadline_ns - executor_.clock().now_ns();
    if (left_ns <= 0) co_return Error(Errc::kTimeout, "the disk of the metadata does not answer");
    wanted_ = true;
    work_.notify_all();
    co_await finished_.wait(left_ns);
  }
  co_return ok();
}

Task<> SyncGate::run() {
  while (!failed_) {
    if (changed_ == synced_) {
      if (stopping_) co_return;
      co_await work_.wait(-1);
      continue;
    }
    const std::int64_t due_ns = executor_.clock().now_ns() + kSyncEvery_ns;
    while (!wanted_ && !stopping_) {
      const std::int64_t left_ns = due_ns - executor_.clock().now_ns();
      if (left_ns <= 0) break;
      co_await work_.wait(left_ns);
    }
    wanted_ = false;
    const std::uint64_t index = changed_;
    Result<void> synced = ok();
    co_await pool_.run([&] { synced = store_.sync(); });
    if (synced) {
      synced_ = index;
      if (on_synced_) on_synced_();
    } else {
      failed_ = synced.error();
      failed_handler_(*failed_);
    }
    finished_.notify_all();
  }
}

void SyncGate::stop() {
  stopping_ = true;
  work_.notify_all();
}

}  // namespace gradfs
