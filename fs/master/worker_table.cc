#include "fs/master/worker_table.h"

#include "fs/meta/keys.h"

namespace gradfs {
namespace {

constexpr std::int64_t kAliveFor_ns = 15 * kSecond_ns;  // three polls
constexpr std::int64_t kTellAgain_ns = 5 * kSecond_ns;
constexpr int kCommandsMax = 512;

}  // namespace

void WorkerTable::load(const std::vector<stored::Worker>& workers) {
  for (const auto& worker : workers) workers_[WorkerId{worker.address().worker()}].worker = worker;
}

void WorkerTable::registered(const stored::Worker& worker) {
  Entry& entry = workers_[WorkerId{worker.address().worker()}];
  entry.worker = worker;
  entry.seen_ns = clock_.now_ns();
  entry.current = true;
  entry.told_ns.clear();
}

Result<void> WorkerTable::seen(WorkerId worker, std::uint64_t incarnation, std::uint64_t used_bytes) {
  if (!is_current(worker, incarnation)) return Error(Errc::kStaleEpoch, "the worker has to register");
  Entry& entry = workers_[worker];
  entry.used_bytes = used_bytes;
  entry.seen_ns = clock_.now_ns();
  return ok();
}

bool WorkerTable::is_current(WorkerId worker) const {
  const auto found = workers_.find(worker);
  return found != workers_.end() && found->second.current;
}

bool WorkerTable::is_current(WorkerId worker, std::uint64_t incarnation) const {
  return is_current(worker) && workers_.at(worker).worker.incarnation() == incarnation;
}

bool WorkerTable::is_alive(const Entry& entry) const {
  return entry.current && clock_.now_ns() - entry.seen_ns < kAliveFor_ns;
}

WorkerId WorkerTable::pick() const {
  WorkerId best;
  std::int64_t best_room = 0;
  for (const auto& [id, entry] : workers_) {
    const auto room = static_cast<std::int64_t>(entry.worker.capacity_bytes()) -
                      static_cast<std::int64_t>(entry.used_bytes);
    const std::int64_t rank = is_alive(entry) ? room : INT64_MIN + 1;
    if (best && rank <= best_room) continue;
    best = id;
    best_room = rank;
  }
  return best;
}

const wire::WorkerAddress* WorkerTable::address(WorkerId worker) const {
  const auto found = workers_.find(worker);
  return found == workers_.end() ? nullptr : &found->second.worker.address();
}

std::vector<wire::WorkerInfo> WorkerTable::infos() const {
  std::vector<wire::WorkerInfo> out;
  for (const auto& [id, entry] : workers_) {
    wire::WorkerInfo& info = out.emplace_back();
    *info.mutable_address() = entry.worker.address();
    info.set_capacity_bytes(entry.worker.capacity_bytes());
    info.set_used_bytes(entry.used_bytes);
    info.set_incarnation(entry.worker.incarnation());
    info.set_alive(is_alive(entry));
  }
  return out;
}

void WorkerTable::forget_done(const Namespace& names, WorkerId worker, Entry& entry) {
  std::erase_if(entry.told_ns, [&](const auto& told) {
    return !names.commands(told.first.first, worker).contains(told.first.second);
  });
}

wire::WorkerPollResponse WorkerTable::take_commands(const Namespace& names, WorkerId worker,
                                                    std::uint64_t synced_index) {
  wire::WorkerPollResponse response;
  Entry& entry = workers_[worker];
  forget_done(names, worker, entry);
  const std::int64_t now_ns = clock_.now_ns();
  const auto take = [&](char kind, std::uint64_t up_to, auto* out) {
    for (const auto& [id, index] : names.commands(kind, worker)) {
      if (out->size() >= kCommandsMax) return;
      if (index > up_to) continue;
      std::int64_t& told_ns = entry.told_ns[{kind, id}];
      if (told_ns != 0 && now_ns - told_ns < kTellAgain_ns) continue;
      told_ns = now_ns;
      out->Add(id);
    }
  };
  take(keys::kDropImage, synced_index, response.mutable_drop_images());
  take(keys::kDropBinding, synced_index, response.mutable_drop_bindings());
  take(keys::kCommitInode, names.applied_index(), response.mutable_commit_inodes());
  return response;
}

}  // namespace gradfs
