// Journal: makes entries for a Namespace: gives each its index, the epoch, its time and its ids. What is
// random or depends on the clock is decided here, before the entry, so that the entry alone says all.
//
// Ids come from ranges that are on disk before the first of them is used: after a loss of power none is given
// twice.
#pragma once

#include <functional>

#include "fs/meta/namespace.h"

namespace gradfs {

struct JournalStart {
  std::string cluster;    // name, taken when the store is empty
  std::uint32_t uid = 0;  // owner of the root, likewise
  std::uint32_t gid = 0;
  std::int64_t time_ns = 0;
};

// What a caller says of a mutation.
struct Mutation {
  std::uint32_t method = 0;  // methods.def
  std::string request;       // serialized
  std::uint64_t client = 0;  // 0: the master itself
  std::uint64_t request_id = 0;
  std::int64_t time_ns = 0;
  WorkerId worker;  // home for a new file
};

class Journal {
 public:
  // Starts a new epoch, on disk when this returns. Both must outlive the journal.
  static Result<std::unique_ptr<Journal>> start(Store& store, Namespace& names, const JournalStart& start);

  Result<std::string> commit(Mutation mutation);
  [[nodiscard]] std::uint64_t epoch() const { return names_.header().epoch(); }
  // Sees every entry that was applied, in order.
  void observe(std::function<void(const stored::JournalEntry&)> observer) { observer_ = std::move(observer); }

 private:
  Journal(Store& store, Namespace& names) : store_(store), names_(names) {}
  Result<void> reserve_ids(std::int64_t time_ns);

  Store& store_;
  Namespace& names_;
  std::uint64_t next_id_ = 0;
  std::int64_t last_time_ns_ = 0;
  std::function<void(const stored::JournalEntry&)> observer_;
};

}  // namespace gradfs
