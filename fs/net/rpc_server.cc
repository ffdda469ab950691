#include <cstring>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "fs/net/rpc.h"

namespace gradfs {
namespace {

constexpr std::size_t kMaxCallsPerConnection = 256;

}  // namespace

struct RpcServer::Impl {
  explicit Impl(Executor& e) : executor(e), scope(e) {}

  // One peer. Kept alive by its reader and by the calls under way.
  struct Peer {
    Peer(Executor& executor, std::unique_ptr<Connection> c)
        : connection(std::move(c)), write_mutex(executor), ended(executor) {}
    std::unique_ptr<Connection> connection;
    AsyncMutex write_mutex;
    Notify ended;  // a call has ended
    std::size_t calls = 0;
  };

  static Task<> accept_loop(std::shared_ptr<Impl> self, std::shared_ptr<Listener> listener) {
    for (;;) {
      auto connection = co_await listener->accept();
      if (!connection && connection.error().code == Errc::kUnavailable) co_return;
      if (!connection) {  // out of descriptors, say: try again soon
        spdlog::warn("accept: {}", connection.error().message());
        co_await self->executor.clock().sleep_ns(100 * kMillisecond_ns);
        continue;
      }
      auto peer = std::make_shared<Peer>(self->executor, std::move(connection).value());
      self->peers.push_back(peer);
      if (!self->scope.spawn(read_loop(self, peer))) co_return;
    }
  }

  static Task<> read_loop(std::shared_ptr<Impl> self, std::shared_ptr<Peer> peer) {
    for (;;) {
      auto frame = co_await peer->connection->read();
      if (!frame || frame.value().header.kind != FrameKind::kRequest) {
        if (frame || frame.error().code == Errc::kCorrupt)
          spdlog::warn("closed a connection that sent a bad frame");
        break;
      }
      while (peer->calls >= kMaxCallsPerConnection) co_await peer->ended.wait(-1);
      ++peer->calls;
      if (!self->scope.spawn(serve(self, peer, std::move(frame).value()))) break;
    }
    peer->connection->close();
    std::erase_if(self->peers, [&](const auto& other) { return other == peer; });
  }

  static Task<> serve(std::shared_ptr<Impl> self, std::shared_ptr<Peer> peer, Frame request) {
    CallContext context;
    context.client = request.header.client;
    context.request_id = request.header.request_id;
    context.is_retry = request.header.is_retry;
    context.peer_epoch = request.header.epoch;
    context.peer_uid = peer->connection->peer_uid();
    if (request.header.deadline_ms > 0) {
      context.deadline_ns = self->executor.clock().now_ns() + request.header.deadline_ms * kMillisecond_ns;
    }
    Result<std::string> result =
        Error(Errc::kNotSupported, "method " + std::to_string(request.header.method));
    const auto handler = self->handlers.find(request.header.method);
    if (handler != self->handlers.end()) {
      result = co_await handler->second(std::move(request.message), context);
    }
    co_await self->answer(*peer, request.header, std::move(result), std::move(context.reply_descriptors));
    --peer->calls;
    peer->ended.notify_all();
  }

  // An answer that cannot be sent (too big, descriptors over TCP) becomes an error of its call.
  Task<> answer(Peer& peer, FrameHeader request, Result<std::string> result,
                std::vector<UniqueFd> descriptors) {
    const auto lock = co_await peer.write_mutex.lock();
    for (;;) {
      Frame response;
      response.header = request;
      response.header.kind = FrameKind::kResponse;
      response.header.status = result ? Errc::kOk : result.error().code;
      response.header.epoch = epoch;
      response.message = result ? std::move(result).value() : std::move(result).error().detail;
      response.descriptors = std::move(descriptors);
      const bool was_error = response.header.status != Errc::kOk;
      auto written = co_await peer.connection->write(std::move(response));
      if (written) co_return;
      if (written.error().code == Errc::kUnavailable || was_error) break;
      result = written.error();
      descriptors.clear();
    }
    peer.connection->close();
  }

  void close() {
    scope.close();
    for (const auto& listener : listeners) listener->close();
    for (const auto& peer : peers) peer->connection->close();
  }

  Executor& executor;
  Scope scope;
  std::unordered_map<std::uint16_t, RawHandler> handlers;
  std::vector<std::shared_ptr<Listener>> listeners;
  std::vector<std::shared_ptr<Peer>> peers;
  std::uint64_t epoch = 0;
};

RpcServer::RpcServer(Executor& executor) : impl_(std::make_shared<Impl>(executor)) {}
RpcServer::~RpcServer() { impl_->close(); }

void RpcServer::add(std::uint16_t method, RawHandler handler) {
  const bool added = impl_->handlers.emplace(method, std::move(handler)).second;
  GRADFS_CHECK(added);
}

Result<std::string> RpcServer::listen(Transport& transport, const std::string& address) {
  GRADFS_TRY(auto made, transport.listen(address));
  const std::shared_ptr<Listener> listener = std::move(made);
  impl_->listeners.push_back(listener);
  impl_->scope.spawn(Impl::accept_loop(impl_, listener));
  return listener->address();
}

void RpcServer::set_epoch(std::uint64_t epoch) { impl_->epoch = epoch; }

Task<> RpcServer::shutdown(std::int64_t timeout_ns) {
  const auto impl = impl_;
  impl->close();
  co_await impl->scope.join(timeout_ns);
}

}  // namespace gradfs
