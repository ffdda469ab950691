#include "fs/meta/journal.h"

#include <algorithm>

#include "fs/base/faults.h"

namespace gradfs {
namespace {

constexpr std::uint64_t kFirstId = 16;  // 1 is the root; the others stay free

}  // namespace

Result<std::unique_ptr<Journal>> Journal::start(Store& store, Namespace& names, const JournalStart& start) {
  std::unique_ptr<Journal> journal(new Journal(store, names));
  const std::uint64_t first = std::max(kFirstId, names.header().reserved_id());
  stored::StartEpoch request;
  request.set_cluster(start.cluster);
  request.set_uid(start.uid);
  request.set_gid(start.gid);
  request.set_reserved_id(first + kIdRange);
  stored::JournalEntry entry;
  entry.set_index(names.applied_index() + 1);
  entry.set_epoch(names.header().epoch() + 1);
  entry.set_time_ns(start.time_ns);
  entry.set_first_id(first);
  entry.set_method(kStartEpochMethod);
  entry.set_request(request.SerializeAsString());
  GRADFS_TRYV(names.apply(entry));
  GRADFS_TRYV(store.sync());
  journal->next_id_ = first + names.ids_used();
  journal->last_time_ns_ = start.time_ns;
  return journal;
}

Result<void> Journal::reserve_ids(std::int64_t time_ns) {
  stored::ReserveIds request;
  request.set_reserved_id(names_.header().reserved_id() + kIdRange);
  stored::JournalEntry entry;
  entry.set_index(names_.applied_index() + 1);
  entry.set_epoch(epoch());
  entry.set_time_ns(time_ns);
  entry.set_first_id(next_id_);
  entry.set_method(kReserveIdsMethod);
  entry.set_request(request.SerializeAsString());
  GRADFS_TRYV(names_.apply(entry));
  if (observer_) observer_(entry);
  return store_.sync();
}

Result<std::string> Journal::commit(Mutation mutation) {
  // Stored times never go back, also where the host's clock does.
  last_time_ns_ = std::max(last_time_ns_, mutation.time_ns);
  if (next_id_ + kIdsPerEntry > names_.header().reserved_id()) {
    GRADFS_TRYV(reserve_ids(last_time_ns_));
  }
  stored::JournalEntry entry;
  entry.set_index(names_.applied_index() + 1);
  entry.set_epoch(epoch());
  entry.set_time_ns(last_time_ns_);
  entry.set_first_id(next_id_);
  entry.set_method(mutation.method);
  entry.set_request(std::move(mutation.request));
  entry.set_client(mutation.client);
  entry.set_request_id(mutation.request_id);
  entry.set_worker(mutation.worker.value);
  (void)GRADFS_FAULT("master.commit.begin");
  auto answer = names_.apply(entry);
  (void)GRADFS_FAULT("master.commit.written");
  next_id_ += names_.ids_used();
  if (observer_ && names_.applied_index() == entry.index()) observer_(entry);
  return answer;
}

}  // namespace gradfs
