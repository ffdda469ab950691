#include "client/mount/request.h"

#include <sys/statvfs.h>

#include <csignal>
#include <utility>

#include "client/mount/processes.h"

namespace gradfs {

Request::Request(fuse_req_t raw, std::function<void(Request)> interrupted)
    : state_(std::make_shared<State>()) {
  const fuse_ctx* context = fuse_req_ctx(raw);
  state_->raw = raw;
  state_->uid = context->uid;
  state_->gid = context->gid;
  state_->pid = context->pid;
  state_->interrupted = std::move(interrupted);
  state_->self = state_;
  fuse_req_interrupt_func(raw, &Request::on_interrupt, state_.get());
}

// libfuse forgets the function with the answer, and the state lives until then: a coroutine holds it.
void Request::on_interrupt(fuse_req_t, void* data) {
  const auto state = static_cast<State*>(data)->self.lock();
  if (state && state->interrupted) std::exchange(state->interrupted, nullptr)(Request(state));
}

void Request::end_at_any_signal(std::optional<wire::Identity> slot) {
  state_->any_signal = true;
  state_->slot = std::move(slot);
}

bool Request::caller_is_dying() const { return kill_is_pending(state_->pid); }

fuse_req_t Request::take() const { return std::exchange(state_->raw, nullptr); }

bool Request::error(int error_number) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_err(raw, error_number) == 0;
}

bool Request::entry(const fuse_entry_param& entry) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_entry(raw, &entry) == 0;
}

bool Request::attr(const struct stat& attr, double timeout) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_attr(raw, &attr, timeout) == 0;
}

bool Request::bytes(const char* data, std::size_t size) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_buf(raw, data, size) == 0;
}

bool Request::data(fuse_bufvec* buffers) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_data(raw, buffers, FUSE_BUF_NO_SPLICE) == 0;
}

bool Request::written(std::size_t size) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_write(raw, size) == 0;
}

bool Request::xattr_size(std::size_t size) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_xattr(raw, size) == 0;
}

bool Request::statfs(const struct statvfs& out) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_statfs(raw, &out) == 0;
}

bool Request::offset(off_t at) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_lseek(raw, at) == 0;
}

bool Request::target(const std::string& link) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_readlink(raw, link.c_str()) == 0;
}

bool Request::opened(const fuse_file_info& info) const {
  const fuse_req_t raw = take();
  return raw != nullptr && fuse_reply_open(raw, &info) == 0;
}

bool Request::opened(const OpenReply& reply) const {
  const fuse_req_t raw = take();
  return raw != nullptr && reply_open(raw, reply) == 0;
}

bool Request::created(const fuse_entry_param& entry, const OpenReply& reply) const {
  const fuse_req_t raw = take();
  return raw != nullptr && reply_create(raw, entry, reply) == 0;
}

}  // namespace gradfs
