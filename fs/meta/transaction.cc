#include "fs/meta/transaction.h"

namespace gradfs {

Result<std::optional<std::string>> Transaction::get(const std::string& key) {
  if (const auto changed = batch_.rows.find(key); changed != batch_.rows.end()) return changed->second;
  return store_.get(key);
}

Result<std::vector<Row>> Transaction::scan(const std::string& begin, const std::string& end,
                                           std::size_t limit) {
  const auto first = batch_.rows.lower_bound(begin);
  const auto last = batch_.rows.lower_bound(end);
  const auto changes = static_cast<std::size_t>(std::distance(first, last));
  GRADFS_TRY(auto rows, store_.scan(begin, end, limit > kNoLimit - changes ? kNoLimit : limit + changes));
  if (changes == 0) return rows;
  std::vector<Row> out;
  auto row = rows.begin();
  for (auto change = first; change != last; ++change) {
    while (row != rows.end() && row->key < change->first) out.push_back(std::move(*row++));
    if (row != rows.end() && row->key == change->first) ++row;
    if (change->second) out.push_back({change->first, *change->second});
  }
  for (; row != rows.end(); ++row) out.push_back(std::move(*row));
  if (out.size() > limit) out.resize(limit);
  return out;
}

Result<std::vector<Row>> Transaction::scan_prefix(const std::string& prefix, std::size_t limit) {
  return scan(prefix, keys::after_prefix(prefix), limit);
}

void Transaction::erase_prefix(const std::string& prefix) {
  batch_.erased_ranges.emplace_back(prefix, keys::after_prefix(prefix));
}

Result<stored::Inode> Transaction::inode(std::uint64_t id) {
  GRADFS_TRY(auto found, find<stored::Inode>(keys::inode(id)));
  if (!found) return Error(Errc::kNotFound);
  return std::move(*found);
}

Result<stored::Inode> Transaction::directory(std::uint64_t id) {
  GRADFS_TRY(auto found, inode(id));
  if (found.attr().type() != wire::DIRECTORY) return Error(Errc::kNotDirectory);
  return found;
}

Result<std::optional<std::uint64_t>> Transaction::entry(std::uint64_t parent, std::string_view name) {
  GRADFS_TRY(auto value, get(keys::entry(parent, name)));
  if (!value) return std::optional<std::uint64_t>();
  return std::optional(keys::number_at(*value, 0));
}

Result<stored::Binding> Transaction::binding(std::uint64_t id) {
  GRADFS_TRY(auto found, find<stored::Binding>(keys::binding(id)));
  if (!found) return Error(Errc::kNotFound, "no such binding");
  return std::move(*found);
}

Result<std::uint64_t> Transaction::number(const std::string& key) {
  GRADFS_TRY(auto value, get(key));
  return value ? keys::number_at(*value, 0) : std::uint64_t{0};
}

Batch Transaction::take_batch() {
  put_message(keys::header(), header_);
  return std::move(batch_);
}

}  // namespace gradfs
