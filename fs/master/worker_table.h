// WorkerTable: what the master knows of its workers in this epoch. Which exist is in the namespace; who is
// alive, how full they are and what they were told lately is only here.
#pragma once

#include <map>
#include <vector>

#include "fs/base/clock.h"
#include "fs/meta/namespace.h"

namespace gradfs {

class WorkerTable {
 public:
  explicit WorkerTable(Clock& clock) : clock_(clock) {}

  void load(const std::vector<stored::Worker>& workers);
  // It has registered in this epoch.
  void registered(const stored::Worker& worker);
  // kStaleEpoch: it has to register (again) first.
  Result<void> seen(WorkerId worker, std::uint64_t incarnation, std::uint64_t used_bytes);
  [[nodiscard]] bool is_current(WorkerId worker) const;
  [[nodiscard]] bool is_current(WorkerId worker, std::uint64_t incarnation) const;

  // Home for a new file: the living one with most room, else any; 0: none has ever registered.
  [[nodiscard]] WorkerId pick() const;
  [[nodiscard]] const wire::WorkerAddress* address(WorkerId worker) const;
  [[nodiscard]] std::vector<wire::WorkerInfo> infos() const;

  // What this worker is to do now, at most some hundred things: from `names`, deletes only up to
  // `synced_index`. What was told less than a few seconds ago is not told again.
  wire::WorkerPollResponse take_commands(const Namespace& names, WorkerId worker, std::uint64_t synced_index);

 private:
  struct Entry {
    stored::Worker worker;
    std::uint64_t used_bytes = 0;
    std::int64_t seen_ns = 0;
    bool current = false;
    std::map<std::pair<char, std::uint64_t>, std::int64_t> told_ns;
  };
  [[nodiscard]] bool is_alive(const Entry& entry) const;
  void forget_done(const Namespace& names, WorkerId worker, Entry& entry);

  Clock& clock_;
  std::map<WorkerId, Entry> workers_;
};

}  // namespace gradfs
