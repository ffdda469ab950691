#include "fs/meta/store.h"

namespace gradfs {

Result<std::optional<std::string>> MemoryStore::get(std::string_view key) {
  const std::lock_guard lock(mutex_);
  const auto found = rows_.find(key);
  if (found == rows_.end()) return std::optional<std::string>();
  return std::optional<std::string>(found->second);
}

Result<std::vector<Row>> MemoryStore::scan(std::string_view begin, std::string_view end, std::size_t limit) {
  const std::lock_guard lock(mutex_);
  std::vector<Row> out;
  for (auto row = rows_.lower_bound(begin); row != rows_.end() && row->first < end && out.size() < limit;
       ++row) {
    out.push_back({row->first, row->second});
  }
  return out;
}

void MemoryStore::apply(const Batch& batch, Rows& rows) {
  for (const auto& [begin, end] : batch.erased_ranges) {
    if (begin < end) rows.erase(rows.lower_bound(begin), rows.lower_bound(end));
  }
  for (const auto& [key, value] : batch.rows) {
    if (value) {
      rows[key] = *value;
    } else {
      rows.erase(key);
    }
  }
}

Result<void> MemoryStore::write(const Batch& batch) {
  const std::lock_guard lock(mutex_);
  if (failures_ > 0) {
    --failures_;
    return Error(Errc::kIo, "injected");
  }
  apply(batch, rows_);
  unsynced_.push_back(batch);
  return ok();
}

Result<void> MemoryStore::sync() {
  const std::lock_guard lock(mutex_);
  if (failures_ > 0) {
    --failures_;
    return Error(Errc::kIo, "injected");
  }
  for (const Batch& batch : unsynced_) apply(batch, synced_);
  unsynced_.clear();
  return ok();
}

std::uint64_t MemoryStore::approximate_rows() {
  const std::lock_guard lock(mutex_);
  return rows_.size();
}

void MemoryStore::lose_unsynced() {
  const std::lock_guard lock(mutex_);
  rows_ = synced_;
  unsynced_.clear();
}

void MemoryStore::fail_next(unsigned count) {
  const std::lock_guard lock(mutex_);
  failures_ = count;
}

}  // namespace gradfs
