#include <algorithm>

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
      : executor(e), transport(t), address(std::move(a)), client_id(id), scope(e), connect_mutex(e), write_mutex(e) {}

  struct PendingCall {
    explicit PendingCall(Executor& executor) : waiter(executor) {}
    Waiter waiter;
    Result<Frame> reply = Error(Errc::kUnavailable);
  };

  // Connects unless connected. Reads of a connection end with it; its calls under way fail then.
  Task<Result<void>> ensure_connected(std::int64_t timeout_ns) {
    auto lock = co_await connect_mutex.lock();
    if (closed) co_return Error(Errc::kCancelled, "client closed");
    if (connection != nullptr) co_return ok();
    GRADFS_CO_TRY(auto made, co_await transport.connect(address, std::min(timeout_ns, kConnectTimeout_ns)));
    connection = std::shared_ptr<Connection>(std::move(made));
    scope.spawn(read_loop(shared_from_this(), connection));
    co_return ok();
  }

  static Task<> read_loop(std::shared_ptr<Impl> self, std::shared_ptr<Connection> from) {
    for (;;) {
      auto frame = co_await from->read();
      if (!frame || frame.value().header.kind != FrameKind::kResponse) {
        if (frame || frame.error().code == Errc::kCorrupt) spdlog::warn("{}: bad frame, reconnecting", self->address);
        break;
      }
      const FrameHeader& header = frame.value().header;
      const auto found = self->pending.find(header.request_id);
      if (header.epoch != 0 && header.epoch < self->epoch) break;  // an answer of an earlier master
      self->epoch = std::max(self->epoch, header.epoch);
      if (found == self->pending.end()) continue;  // its caller has given up
      found->second->reply = std::move(frame);
      found->second->waiter.wake();
      self->pending.erase(found);
    }
    self->lose(from);
  }

  void lose(const std::shared_ptr<Connection>& lost) {
    lost->close();
    if (connection != lost) return;
    connection = nullptr;
    auto failed = std::move(pending);
    pending.clear();
    for (auto& [id, call] : failed) call->waiter.wake();  // the reply stays kUnavailable
  }

  // One try: send and wait for the answer.
  Task<Result<Frame>> attempt(Frame request, std::int64_t deadline_ns) {
    const std::uint64_t id = request.header.request_id;
    GRADFS_CO_TRYV(co_await ensure_connected(deadline_ns - executor.clock().now_ns()));
    const auto used = connection;
    PendingCall call(executor);
    pending[id] = &call;
    {
      auto lock = co_await write_mutex.lock();
      auto written = co_await used->write(std::move(request));
      if (!written) lose(used);
    }
    const std::int64_t left = std::max<std::int64_t>(0, deadline_ns - executor.clock().now_ns());
    const bool answered = co_await call.waiter.wait(left);
    if (!answered) {
      pending.erase(id);
      co_return Error(Errc::kTimeout, "no answer from " + address);
    }
    if (!call.reply) co_return Error(closed ? Errc::kCancelled : Errc::kUnavailable, "lost the connection to " + address);
    co_return std::move(call.reply);
  }

  Executor& executor;
  Transport& transport;
  std::string address;
  const std::uint64_t client_id;
  Scope scope;
  AsyncMutex connect_mutex;
  AsyncMutex write_mutex;
  std::shared_ptr<Connection> connection;
  std::unordered_map<std::uint64_t, PendingCall*> pending;
  std::uint64_t next_request = 1;
  std::uint64_t epoch = 0;
  bool closed = false;
};

RpcClient::RpcClient(Executor& executor, Transport& transport, std::string address, std::uint64_t client_id)
    : impl_(std::make_shared<Impl>(executor, transport, std::move(address), client_id)) {}

RpcClient::~RpcClient() { close(); }

Task<Result<std::string>> RpcClient::call_raw(std::uint16_t method, std::string message, CallOptions options) {
  const auto impl = impl_;
  Clock& clock = impl->executor.clock();
  const std::int64_t deadline_ns = clock.now_ns() + options.timeout_ns;
  const std::uint64_t id = impl->next_request++;
  std::int64_t backoff_ns = kFirstBackoff_ns;
  for (bool is_retry = false;; is_retry = true) {
    const std::int64_t left_ns = deadline_ns - clock.now_ns();
    Frame request;
    request.header.method = method;
    request.header.request_id = id;
    request.header.client = impl->client_id;
    request.header.is_retry = is_retry;
    request.header.epoch = impl->epoch;
    request.header.deadline_ms = static_cast<std::uint32_t>(std::clamp<std::int64_t>(left_ns / kMillisecond_ns, 1, UINT32_MAX));
    request.message = message;
    auto reply = co_await impl->attempt(std::move(request), deadline_ns);
    if (reply) {
      Frame& frame = reply.value();
      if (frame.header.status != Errc::kOk) co_return Error(frame.header.status, std::move(frame.message));
      if (options.descriptors != nullptr) *options.descriptors = std::move(frame.descriptors);
      co_return std::move(frame.message);
    }
    const bool lost = reply.error().code == Errc::kUnavailable;
    if (!lost || !options.retry || clock.now_ns() + backoff_ns >= deadline_ns) co_return std::move(reply).error();
    co_await clock.sleep_ns(backoff_ns);
    backoff_ns = std::min(backoff_ns * 2, kLastBackoff_ns);
  }
}

std::uint64_t RpcClient::epoch() const { return impl_->epoch; }
bool RpcClient::connected() const { return impl_->connection != nullptr; }
std::uint64_t RpcClient::client_id() const { return impl_->client_id; }

void RpcClient::move_to(std::string address) {
  impl_->address = std::move(address);
  if (impl_->connection != nullptr) impl_->lose(impl_->connection);
}

void RpcClient::close() {
  impl_->closed = true;
  impl_->scope.close();
  if (impl_->connection != nullptr) impl_->lose(impl_->connection);
}

}  // namespace gradfs
