// Store: the ordered key-value store under the namespace. RocksStore is the real one; MemoryStore is for
// tests and simulation. Keys are compared as unsigned bytes.
//
// write() and the reads belong to one thread; sync() may run beside them on another.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/base/result.h"

namespace gradfs {

// What one write does, all or nothing: first the ranges go, then each row is put, or erased where it has no
// value.
struct Batch {
  std::vector<std::pair<std::string, std::string>> erased_ranges;  // [begin, end)
  std::map<std::string, std::optional<std::string>, std::less<>> rows;
};

struct Row {
  std::string key;
  std::string value;
};

class Store {
 public:
  virtual ~Store() = default;
  virtual Result<std::optional<std::string>> get(std::string_view key) = 0;
  // The first `limit` rows with begin <= key < end, in order of their keys.
  virtual Result<std::vector<Row>> scan(std::string_view begin, std::string_view end, std::size_t limit) = 0;
  // After it returned, a killed process loses nothing of it; a host that loses power may, until sync().
  virtual Result<void> write(const Batch& batch) = 0;
  // Everything written before the call is on disk when it returns.
  virtual Result<void> sync() = 0;
  // About how many rows there are; cheap.
  virtual std::uint64_t approximate_rows() = 0;
};

// A directory of RocksDB files. kBusy: another process has it open. kCorrupt: the files are damaged.
Result<std::unique_ptr<Store>> open_rocks_store(const std::string& directory);

class MemoryStore final : public Store {
 public:
  Result<std::optional<std::string>> get(std::string_view key) override;
  Result<std::vector<Row>> scan(std::string_view begin, std::string_view end, std::size_t limit) override;
  Result<void> write(const Batch& batch) override;
  Result<void> sync() override;
  std::uint64_t approximate_rows() override;

  // The host loses power: what was written after the last sync() is gone.
  void lose_unsynced();
  // The next `count` calls of sync() fail, and of write() too.
  void fail_next(unsigned count);

 private:
  using Rows = std::map<std::string, std::string, std::less<>>;
  static void apply(const Batch& batch, Rows& rows);

  std::mutex mutex_;  // of everything below
  Rows rows_;
  Rows synced_;
  std::vector<Batch> unsynced_;
  unsigned failures_ = 0;
};

}  // namespace gradfs
