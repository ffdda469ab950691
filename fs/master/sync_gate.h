// SyncGate: the group commit of the master's log. A flush runs at the latest kSyncEvery after a change, and
// at once when somebody waits for one; many waiters share it. A failed flush ends everything: what was
// acknowledged as durable might not be.
#pragma once

#include <functional>
#include <optional>

#include "fs/meta/store.h"
#include "fs/net/sync.h"

namespace gradfs {

class SyncGate {
 public:
  // threads: 1, or 0 in a simulation. `failed` is called once, on the executor's thread.
  SyncGate(Executor& executor, Store& store, unsigned threads, std::function<void(const Error&)> failed);

  // Everything up to this index of the journal is in the store now.
  void changed(std::uint64_t index);
  // Returns when everything that was in the store at the call is on disk.
  Task<Result<void>> wait();
  [[nodiscard]] std::uint64_t synced() const { return synced_; }
  // Called on the executor's thread after each flush.
  void on_synced(std::function<void()> handler) { on_synced_ = std::move(handler); }

  // The loop; ends after stop(), with everything on disk.
  Task<> run();
  void stop();

 private:
  Executor& executor_;
  Store& store_;
  WorkerPool pool_;
  std::function<void(const Error&)> failed_handler_;
  std::function<void()> on_synced_;
  std::uint64_t changed_ = 0;
  std::uint64_t synced_ = 0;
  bool wanted_ = false;
  bool stopping_ = false;
  std::optional<Error> failed_;
  Notify work_;      // something changed, or somebody waits
  Notify finished_;  // a flush has ended
};

}  // namespace gradfs
