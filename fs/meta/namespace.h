// Namespace: all metadata of a cluster as operations on a Store. Every mutation is one journal entry that
// applies the same way everywhere: apply() reads no clock and no random source. The index of the last applied
// entry lies in the same batch as its effects, so that a batch is there with its index or not at all.
//
// Permissions are the kernel's of the mount (default_permissions); the namespace does not check them.
// One thread. After a failed write nothing more is applied (failed()).
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "fs/base/ids.h"
#include "fs/meta/limits.h"
#include "fs/meta/store.h"
#include "fs/meta/stored.pb.h"

namespace gradfs {

// Numbers of the master's own entries, beyond those of methods.def.
inline constexpr std::uint32_t kStartEpochMethod = 200;
inline constexpr std::uint32_t kReserveIdsMethod = 201;

class Namespace {
 public:
  // The store must outlive it. An empty store is an empty namespace: its first entry is a StartEpoch.
  static Result<std::unique_ptr<Namespace>> open(Store& store);

  // Applies the entry and returns the serialized response. On an error nothing has changed, but that the
  // answer is remembered for a retry: the same (client, request_id) gets the same answer again, and nothing
  // is done twice. The entry's index must be applied_index() + 1.
  Result<std::string> apply(const stored::JournalEntry& entry);
  // How many ids the last apply() took from first_id on.
  [[nodiscard]] std::uint64_t ids_used() const { return ids_used_; }
  [[nodiscard]] const stored::Header& header() const { return header_; }
  [[nodiscard]] std::uint64_t applied_index() const { return header_.applied_index(); }
  [[nodiscard]] const std::optional<Error>& failed() const { return failed_; }

  // Reads.
  Result<wire::AttrResponse> lookup(const wire::LookupRequest& request);
  Result<wire::AttrResponse> get_attr(const wire::InodeRequest& request);
  Result<wire::AttrResponse> open_for_read(const wire::OpenRequest& request);
  Result<wire::ReadDirResponse> read_dir(const wire::ReadDirRequest& request);
  Result<wire::XattrResponse> get_xattr(const wire::XattrRequest& request);
  Result<wire::XattrResponse> list_xattr(const wire::XattrRequest& request);
  Result<wire::OutcomeResponse> push_outcome(const wire::OutcomeRequest& request);
  // By binding, or by directory where binding is 0; with its pending pushes.
  Result<wire::CommitBindResponse> get_binding(const wire::BindingRequest& request);
  Result<wire::ListBindingsResponse> list_bindings();
  Result<std::vector<stored::Session>> sessions();
  Result<std::vector<stored::Worker>> workers();
  Result<std::uint32_t> write_leases(SessionId session);
  Result<WorkerId> worker_of_binding(BindingId binding);

  // What a worker is to be told: id -> index of the entry that says so. `kind` is one of keys.h (kDropImage,
  // ...).
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& commands(char kind, WorkerId worker) const;

 private:
  explicit Namespace(Store& store) : store_(store) {}
  Result<void> load();
  Result<std::string> run(const stored::JournalEntry& entry, Batch& batch, stored::Header& header);
  Result<void> write(const Batch& batch, const stored::Header& header);
  Result<void> remember_answer(const stored::JournalEntry& entry, const Result<std::string>& answer,
                               Batch& batch);
  void mirror_command(const std::string& key, const std::optional<std::string>& value);

  Store& store_;
  stored::Header header_;
  std::optional<Error> failed_;
  std::uint64_t ids_used_ = 0;
  // Mirrors of rows, so that nobody scans over what was deleted.
  std::map<std::pair<char, std::uint64_t>, std::map<std::uint64_t, std::uint64_t>> commands_;
  std::map<std::uint64_t, std::uint64_t> clients_;  // RPC client -> index of its last answer
};

}  // namespace gradfs
