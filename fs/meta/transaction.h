// Transaction: the rows as they stand, with the changes of one journal entry on top, which go to the store as
// one batch or not at all. Also used, without changes, for reads. Internal to fs/meta.
#pragma once

#include <limits>

#include "fs/base/ids.h"
#include "fs/meta/keys.h"
#include "fs/meta/store.h"
#include "fs/meta/stored.pb.h"

namespace gradfs {

inline constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

class Transaction {
 public:
  // The entry must outlive the transaction.
  Transaction(Store& store, const stored::Header& header, const stored::JournalEntry& entry)
      : store_(store), header_(header), entry_(entry) {}

  Result<std::optional<std::string>> get(const std::string& key);
  // Rows with begin <= key < end, changes included.
  Result<std::vector<Row>> scan(const std::string& begin, const std::string& end,
                                std::size_t limit = kNoLimit);
  Result<std::vector<Row>> scan_prefix(const std::string& prefix, std::size_t limit = kNoLimit);
  void put(std::string key, std::string value) { batch_.rows[std::move(key)] = std::move(value); }
  void erase(std::string key) { batch_.rows[std::move(key)] = std::nullopt; }
  // Rows of the store only: those that this transaction put itself stay. Reads after it do not see it.
  void erase_prefix(const std::string& prefix);

  // A row with a message. A value that cannot be parsed is kCorrupt.
  template <class Message>
  Result<std::optional<Message>> find(const std::string& key);
  template <class Message>
  void put_message(std::string key, const Message& message) {
    put(std::move(key), message.SerializeAsString());
  }

  // kNotFound where there is none.
  Result<stored::Inode> inode(std::uint64_t id);
  Result<stored::Inode> directory(std::uint64_t id);  // kNotDirectory too
  void put_inode(const stored::Inode& inode) { put_message(keys::inode(inode.attr().inode()), inode); }
  Result<std::optional<std::uint64_t>> entry(std::uint64_t parent, std::string_view name);
  Result<stored::Binding> binding(std::uint64_t id);
  void put_binding(const stored::Binding& binding) {
    put_message(keys::binding(binding.state().binding()), binding);
  }
  Result<std::uint64_t> number(const std::string& key);  // 0 where there is no row
  void put_number(std::string key, std::uint64_t value) { put(std::move(key), keys::number(value)); }

  [[nodiscard]] std::int64_t now_ns() const { return entry_.time_ns(); }
  [[nodiscard]] const stored::JournalEntry& entry() const { return entry_; }
  std::uint64_t new_id() { return entry_.first_id() + ids_used_++; }
  [[nodiscard]] std::uint64_t ids_used() const { return ids_used_; }
  stored::Header& header() { return header_; }

  // The changes so far, with the header.
  Batch take_batch();

 private:
  Store& store_;
  stored::Header header_;
  const stored::JournalEntry& entry_;
  Batch batch_;
  std::uint64_t ids_used_ = 0;
};

template <class Message>
Result<std::optional<Message>> Transaction::find(const std::string& key) {
  GRADFS_TRY(auto value, get(key));
  if (!value) return std::optional<Message>();
  Message message;
  if (!message.ParseFromString(*value)) return Error(Errc::kCorrupt, "row of kind " + key.substr(0, 1));
  return std::optional<Message>(std::move(message));
}

}  // namespace gradfs
