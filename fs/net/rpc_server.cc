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

  Task<> accept_loop(Listener& listener) {
    for (;;) {
      auto connection = co_await listener.accept();
      if (!connection && connection.error().code == Errc::kUnavailable) co_return;
      if (!connection) {  // out of descriptors, say: try again soon
        spdlog::warn("accept: {}", connection.error().message());
        co_await executor.clock().sleep_ns(100 * kMillisecond_ns);
        continue;
      }
      auto peer = std::make_shared<Peer>(executor, std::move(connection).value());
      peers.push_back(peer);
      if (!scope.spawn(read_loop(peer))) co_return;
    }
  }

  Task<> read_loop(std::shared_ptr<Peer> peer) {
    for (;;) {
      auto frame = co_await peer->connection->read();
      if (!frame || frame.value().header.kind != FrameKind::kRequest) {
        if (frame || frame.error().code == Errc::kCorrupt) spdlog::warn("closed a connection that sent a bad frame");
        break;
      }
      while (peer->calls >= kMaxCallsPerConnection) co_await peer->ended.wait(-1);
      ++peer->calls;
      if (!scope.spawn(serve(peer, std::move(frame).value()))) break;
    }
    peer->connection->close();
    std::erase_if(peers, [&](const auto& other) { return other == peer; });
  }

  Task<> serve(std::shared_ptr<Peer> peer, Frame request) {
    CallContext context;
    context.client = request.header.client;
    context.request_id = request.header.request_id;
    context.is_retry = request.header.is_retry;
    context.peer_epoch = request.header.epoch;
    context.peer_uid = peer->connection->peer_uid();
    if (request.header.deadline_ms > 0) {
      context.deadline_ns = executor.clock().now_ns() + request.header.deadline_ms * kMillisecond_ns;
    }
    Frame response;
    response.header = request.header;
    response.header.kind = FrameKind::kResponse;
    const auto handler = handlers.find(request.header.method);
    if (handler == handlers.end()) {
      response.header.status = Errc::kNotSupported;
      response.message = "method " + std::to_string(request.header.method);
    } else {
      auto result = co_await handler->second(std::move(request.message), context);
      if (result) {
        response.message = std::move(result).value();
      } else {
        response.header.status = result.error().code;
        response.message = std::move(result).error().detail;
      }
    }
    response.header.epoch = epoch;
    response.descriptors = std::move(context.reply_descriptors);
    {
      auto lock = co_await peer->write_mutex.lock();
      auto written = co_await peer->connection->write(std::move(response));
      if (!written) peer->connection->close();
    }
    --peer->calls;
    peer->ended.notify_all();
  }

  Executor& executor;
  Scope scope;
  std::unordered_map<std::uint16_t, RawHandler> handlers;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::vector<std::shared_ptr<Peer>> peers;
  std::uint64_t epoch = 0;
};

RpcServer::RpcServer(Executor& executor) : impl_(std::make_unique<Impl>(executor)) {}
RpcServer::~RpcServer() = default;

void RpcServer::add(std::uint16_t method, RawHandler handler) {
  const bool added = impl_->handlers.emplace(method, std::move(handler)).second;
  GRADFS_CHECK(added);
}

Result<std::string> RpcServer::listen(Transport& transport, const std::string& address) {
  GRADFS_TRY(auto listener, transport.listen(address));
  std::string actual = listener->address();
  impl_->listeners.push_back(std::move(listener));
  impl_->scope.spawn(impl_->accept_loop(*impl_->listeners.back()));
  return actual;
}

void RpcServer::set_epoch(std::uint64_t epoch) { impl_->epoch = epoch; }

Task<> RpcServer::shutdown(std::int64_t timeout_ns) {
  impl_->scope.close();
  for (auto& listener : impl_->listeners) listener->close();
  const auto peers = impl_->peers;
  for (const auto& peer : peers) peer->connection->close();
  co_await impl_->scope.join(timeout_ns);
}

}  // namespace gradfs
