// Request: one FUSE request that is answered once. Copies share it, so that a coroutine that finds its
// request answered already (its caller was interrupted) goes on and only its answer is dropped.
//
// An interrupt is honoured as the operation says: a wait for a push ends with any signal; everything else
// ends only when the caller is being killed, as on a local filesystem. The kernel tells of the first signal
// only, so a request whose caller got a harmless one watches for a deadly one.
//
// One thread, the executor's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/mount/fuse_device.h"
#include "fs/wire/gradfs.pb.h"

struct statvfs;

namespace gradfs {

class Request {
 public:
  // Takes over the request. `interrupted` is called at most once, from libfuse's thread of processing: post,
  // do not act.
  Request(fuse_req_t raw, std::function<void(Request)> interrupted);

  [[nodiscard]] uid_t uid() const { return state_->uid; }
  [[nodiscard]] gid_t gid() const { return state_->gid; }
  [[nodiscard]] pid_t pid() const { return state_->pid; }
  [[nodiscard]] bool answered() const { return state_->raw == nullptr; }

  // Any signal ends this wait. slot: the push whose bytes have to be frozen before.
  void end_at_any_signal(std::optional<wire::Identity> slot);
  [[nodiscard]] bool ends_at_any_signal() const { return state_->any_signal; }
  [[nodiscard]] const std::optional<wire::Identity>& slot() const { return state_->slot; }
  // A signal that kills the caller is pending.
  [[nodiscard]] bool caller_is_dying() const;

  // Answers. false: the caller has not got it (it was interrupted before, or is gone): undo what it should
  // own.
  bool error(int error_number) const;
  bool entry(const fuse_entry_param& entry) const;
  bool attr(const struct stat& attr, double timeout) const;
  bool bytes(const char* data, std::size_t size) const;
  bool data(fuse_bufvec* buffers) const;
  bool written(std::size_t size) const;
  bool xattr_size(std::size_t size) const;
  bool statfs(const struct statvfs& out) const;
  bool offset(off_t at) const;
  bool target(const std::string& link) const;
  bool opened(const fuse_file_info& info) const;
  bool opened(const OpenReply& reply) const;
  bool created(const fuse_entry_param& entry, const OpenReply& reply) const;

 private:
  struct State {
    fuse_req_t raw = nullptr;  // null: answered
    uid_t uid = 0;
    gid_t gid = 0;
    pid_t pid = 0;
    bool any_signal = false;
    std::optional<wire::Identity> slot;
    std::function<void(Request)> interrupted;
    std::weak_ptr<State> self;
  };
  explicit Request(std::shared_ptr<State> state) : state_(std::move(state)) {}
  static void on_interrupt(fuse_req_t raw, void* state);
  // The raw request for its one answer; null if it is answered.
  [[nodiscard]] fuse_req_t take() const;

  std::shared_ptr<State> state_;
};

}  // namespace gradfs
