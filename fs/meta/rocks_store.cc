#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include "fs/meta/store.h"

namespace gradfs {
namespace {

constexpr std::size_t kBlockCache_bytes = 128 << 20;
constexpr std::size_t kWriteBuffer_bytes = 32 << 20;
constexpr std::uint64_t kLogTotal_bytes = 256 << 20;
constexpr double kBloomBitsPerKey = 10;

Error to_error(const rocksdb::Status& status) {
  if (status.IsCorruption()) return {Errc::kCorrupt, status.ToString()};
  if (status.IsNoSpace()) return {Errc::kNoSpace, status.ToString()};
  return {Errc::kIo, status.ToString()};
}

rocksdb::Slice to_slice(std::string_view text) { return {text.data(), text.size()}; }

class RocksStore final : public Store {
 public:
  explicit RocksStore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}

  Result<std::optional<std::string>> get(std::string_view key) override {
    rocksdb::PinnableSlice value;
    const auto status = db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), to_slice(key), &value);
    if (status.IsNotFound()) return std::optional<std::string>();
    if (!status.ok()) return to_error(status);
    return std::optional<std::string>(value.ToString());
  }

  Result<std::vector<Row>> scan(std::string_view begin, std::string_view end, std::size_t limit) override {
    const rocksdb::Slice upper = to_slice(end);
    rocksdb::ReadOptions options;
    options.iterate_upper_bound = &upper;
    std::vector<Row> out;
    const std::unique_ptr<rocksdb::Iterator> row(db_->NewIterator(options));
    for (row->Seek(to_slice(begin)); row->Valid() && out.size() < limit; row->Next()) {
      out.push_back({row->key().ToString(), row->value().ToString()});
    }
    if (!row->status().ok()) return to_error(row->status());
    return out;
  }

  Result<void> write(const Batch& batch) override {
    rocksdb::WriteBatch out;
    rocksdb::Status status;
    for (const auto& [begin, end] : batch.erased_ranges) {
      if (status.ok() && begin < end) status = out.DeleteRange(begin, end);
    }
    for (const auto& [key, value] : batch.rows) {
      if (status.ok()) status = value ? out.Put(key, *value) : out.Delete(key);
    }
    if (status.ok()) status = db_->Write(rocksdb::WriteOptions(), &out);
    if (!status.ok()) return to_error(status);
    return ok();
  }

  Result<void> sync() override {
    const auto status = db_->FlushWAL(true);
    if (!status.ok()) return to_error(status);
    return ok();
  }

  std::uint64_t approximate_rows() override {
    std::uint64_t rows = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kEstimateNumKeys, &rows);
    return rows;
  }

 private:
  std::unique_ptr<rocksdb::DB> db_;
};

rocksdb::Options store_options() {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(kBlockCache_bytes);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = kWriteBuffer_bytes;
  options.max_write_buffer_number = 4;
  options.max_total_wal_size = kLogTotal_bytes;
  options.max_open_files = 256;
  options.max_background_jobs = 2;
  options.paranoid_checks = true;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  options.keep_log_file_num = 4;
  return options;
}

}  // namespace

Result<std::unique_ptr<Store>> open_rocks_store(const std::string& directory) {
  rocksdb::DB* db = nullptr;
  const auto status = rocksdb::DB::Open(store_options(), directory, &db);
  if (status.IsIOError() && status.ToString().find("lock") != std::string::npos) {
    return Error(Errc::kBusy, directory + ": another process has it open");
  }
  if (!status.ok()) return to_error(status);
  return std::unique_ptr<Store>(new RocksStore(std::unique_ptr<rocksdb::DB>(db)));
}

}  // namespace gradfs
