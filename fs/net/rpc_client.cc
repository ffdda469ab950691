#include <algorithm>
#include <deque>

#include "fs/base/log.h"
#include "fs/net/rpc.h"

namespace gradfs {
namespace {

constexpr std::int64_t kFirstBackoff_ns = 10 * kMillisecond_ns;
constexpr std::int64_t kLastBackoff_ns = 500 * kMillisecond_ns;
constexpr std::int64_t kConnectTimeout_ns = 3 * kSecond_ns;

}  // namespace

struct RpcClient::Impl : std::enable_shared_from_this<RpcClient::Impl> {
  Impl(Executor& e, Transport& t, std::string a, std::uint64_t id)
      : executor(e), transport(t), address(std::move(a)), client_id(id), scope(e), connect_ended(e) {}

  struct PendingCall {
    explicit PendingCall(Executor& executor) : waiter(executor) {}
    Waiter waiter;
    Result<Frame> reply = Error(Errc::kUnavailable);
  };

  // A connection and what waits to be sent on it. Ends with the first failure; its calls under way fail then.
  struct Link {
    std::shared_ptr<Connection> connection;
    std::deque<Frame> outgoing;  // at most one for each call
    bool writing = false;
  };

  // Many callers wait for the one connect that is under way, each until its own deadline.
  Task<Result<void>> ensure_connected(std::int64_t deadline_ns) {
    while (link == nullptr) {
      if (closed) co_return Error(Errc::kCancelled, "client closed");
      const std::uint64_t seen = connects_ended;
      if (!connecting) {
        connecting = true;
        scope.spawn(connect_once(shared_from_this()));
      }
      while (connects_ended == seen) {
        const std::int64_t left_ns = deadline_ns - executor.clock().now_ns();
        if (closed) co_return Error(Errc::kCancelled, "client closed");
        if (left_ns <= 0) co_return Error(Errc::kUnavailable, address + ": no answer");
        co_await connect_ended.wait(left_ns);
      }
      if (link == nullptr && connect_error.code != Errc::kOk) co_return connect_error;
    }
    co_return ok();
  }

  static Task<> connect_once(std::shared_ptr<Impl> self) {
    const std::string target = self->address;
    auto made = co_await self->transport.connect(target, kConnectTimeout_ns);
    self->connecting = false;
    ++self->connects_ended;
    self->connect_error = Error(Errc::kOk);
    if (!made) {
      self->connect_error = made.error();
    } else if (!self->closed && target == self->address) {  // else the caller connects anew
      self->link = std::make_shared<Link>();
      self->link->connection = std::move(made).value();
      self->scope.spawn(read_loop(self, self->link));
    }
    self->connect_ended.notify_all();
  }

  static Task<> read_loop(std::shared_ptr<Impl> self, std::shared_ptr<Link> from) {
    for (;;) {
      auto frame = co_await from->connection->read();
      if (self->link != from) break;
      if (!frame || frame.value().header.kind != FrameKind::kResponse) {
        if (frame || frame.error().code == Errc::kCorrupt)
          spdlog::warn("{}: bad frame, reconnecting", self->address);
        break;
      }
      const FrameHeader header = frame.value().header;
      const bool stale = header.epoch != 0 && header.epoch < self->epoch;
      self->epoch = std::max(self->epoch, header.epoch);
      if (stale) {
        self->finish(header.request_id, Error(Errc::kStaleEpoch, self->address));
        break;
      }
      self->finish(header.request_id, std::move(frame));
    }
    self->lose(from);
  }

  // Sends what is queued. A frame that cannot be sent at all fails its call and nothing more.
  static Task<> write_loop(std::shared_ptr<Impl> self, std::shared_ptr<Link> to) {
    while (self->link == to && !to->outgoing.empty()) {
      Frame frame = std::move(to->outgoing.front());
      to->outgoing.pop_front();
      const std::uint64_t id = frame.header.request_id;
      auto written = co_await to->connection->write(std::move(frame));
      if (written) continue;
      if (written.error().code == Errc::kUnavailable) {
        self->lose(to);
      } else {
        self->finish(id, std::move(written).error());
      }
    }
    to->writing = false;
  }

  // Gives a call its end, if it still waits.
  void finish(std::uint64_t id, Result<Frame> reply) {
    const auto found = pending.find(id);
    if (found == pending.end()) return;
    found->second->reply = std::move(reply);
    found->second->waiter.wake();
    pending.erase(found);
  }

  void lose(const std::shared_ptr<Link>& lost) {
    lost->connection->close();
    if (link != lost) return;
    link = nullptr;
    connect_error = Error(Errc::kUnavailable, "lost the connection to " + address);
    auto failed = std::move(pending);
    pending.clear();
    for (auto& [id, call] : failed) call->waiter.wake();  // the reply stays kUnavailable
  }

  // One try: send and wait for the answer. Sets `sent` once the server may have seen it.
  Task<Result<Frame>> attempt(Frame request, std::int64_t deadline_ns, bool& sent) {
    const std::uint64_t id = request.header.request_id;
    GRADFS_CO_TRYV(co_await ensure_connected(deadline_ns));
    const auto used = link;
    PendingCall call(executor);
    pending[id] = &call;
    used->outgoing.push_back(std::move(request));
    sent = true;
    if (!used->writing) {
      used->writing = true;
      if (!scope.spawn(write_loop(shared_from_this(), used))) lose(used);
    }
    const std::int64_t left_ns = std::max<std::int64_t>(0, deadline_ns - executor.clock().now_ns());
    const bool answered = co_await call.waiter.wait(left_ns);
    if (!answered) {
      pending.erase(id);
      std::erase_if(used->outgoing, [id](const Frame& frame) { return frame.header.request_id == id; });
      co_return Error(Errc::kTimeout, "no answer from " + address);
    }
    if (!call.reply && call.reply.error().code == Errc::kUnavailable) {
      co_return Error(closed ? Errc::kCancelled : Errc::kUnavailable, "lost the connection to " + address);
    }
    co_return std::move(call.reply);
  }

  Executor& executor;
  Transport& transport;
  std::string address;
  const std::uint64_t client_id;
  Scope scope;
  std::shared_ptr<Link> link;
  std::unordered_map<std::uint64_t, PendingCall*> pending;
  std::uint64_t next_request = 1;
  std::uint64_t epoch = 0;
  bool closed = false;
  // The connect under way, and how the last one ended (kOk where the address has changed meanwhile).
  bool connecting = false;
  std::uint64_t connects_ended = 0;
  Error connect_error{Errc::kOk};
  Notify connect_ended;
};

RpcClient::RpcClient(Executor& executor, Transport& transport, std::string address, std::uint64_t client_id)
    : impl_(std::make_shared<Impl>(executor, transport, std::move(address), client_id)) {}

RpcClient::~RpcClient() { close(); }

Task<Result<std::string>> RpcClient::call_raw(std::uint16_t method, std::string message,
                                              CallOptions options) {
  const auto impl = impl_;
  Clock& clock = impl->executor.clock();
  const std::int64_t deadline_ns = clock.now_ns() + options.timeout_ns;
  const std::uint64_t id = impl->next_request++;
  std::int64_t backoff_ns = kFirstBackoff_ns;
  bool sent = false;
  for (;;) {
    const std::int64_t left_ns = deadline_ns - clock.now_ns();
    Frame request;
    request.header.method = method;
    request.header.request_id = id;
    request.header.client = impl->client_id;
    request.header.is_retry = sent;
    request.header.epoch = impl->epoch;
    request.header.deadline_ms =
        static_cast<std::uint32_t>(std::clamp<std::int64_t>(left_ns / kMillisecond_ns, 1, UINT32_MAX));
    request.message = message;
    auto reply = co_await impl->attempt(std::move(request), deadline_ns, sent);
    if (reply) {
      Frame& frame = reply.value();
      if (frame.header.status != Errc::kOk) co_return Error(frame.header.status, std::move(frame.message));
      if (options.descriptors != nullptr) *options.descriptors = std::move(frame.descriptors);
      co_return std::move(frame.message);
    }
    const Errc code = reply.error().code;
    const bool again = options.retry && (code == Errc::kUnavailable || code == Errc::kStaleEpoch);
    if (!again || clock.now_ns() + backoff_ns >= deadline_ns) co_return std::move(reply).error();
    co_await clock.sleep_ns(backoff_ns);
    backoff_ns = std::min(backoff_ns * 2, kLastBackoff_ns);
  }
}

std::uint64_t RpcClient::epoch() const { return impl_->epoch; }
bool RpcClient::connected() const { return impl_->link != nullptr; }
std::uint64_t RpcClient::client_id() const { return impl_->client_id; }

void RpcClient::move_to(std::string address) {
  impl_->address = std::move(address);
  if (impl_->link != nullptr) impl_->lose(impl_->link);
}

void RpcClient::close() {
  impl_->closed = true;
  impl_->scope.close();
  if (impl_->link != nullptr) impl_->lose(impl_->link);
  impl_->connect_ended.notify_all();
}

}  // namespace gradfs
