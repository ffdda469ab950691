// RPC over frames: requests go from client to server only; many may be under way on one connection.
//
//   RpcServer server(executor);
//   server.handle<rpc::Lookup>([&](wire::LookupRequest request, CallContext& context) { return
//   lookup(request); }); server.listen(transport, "127.0.0.1:7400");
//
//   RpcClient client(executor, transport, "127.0.0.1:7400");
//   auto reply = co_await client.call<rpc::Lookup>(std::move(request), {.timeout_ns = 5 * kSecond_ns});
//
// A handler is a function object that returns Task<Result<Response>>; it must not be a capturing coroutine
// lambda itself: let it call a member function that is the coroutine, as above. Everything runs on the
// executor's thread. See docs/protocol.md.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fs/net/sync.h"
#include "fs/net/transport.h"
#include "fs/wire/methods.h"

namespace gradfs {

// What a handler knows of its call. Lives until the answer is sent.
struct CallContext {
  std::uint64_t client = 0;  // (client, request_id) names the request over retries
  std::uint64_t request_id = 0;
  bool is_retry = false;
  std::int64_t deadline_ns = 0;             // of the executor's monotonic clock; 0: none
  int peer_uid = -1;                        // of a Unix peer; -1 on TCP
  std::uint64_t peer_epoch = 0;             // the epoch that the caller knows
  std::vector<UniqueFd> reply_descriptors;  // sent with the answer
};

class RpcServer {
 public:
  explicit RpcServer(Executor& executor);
  ~RpcServer();

  template <class Method,
            class Handler>  // Handler: (Method::Request, CallContext&) -> Task<Result<Method::Response>>
  void handle(Handler handler);
  // Starts to serve. May be called for several addresses; returns the address in use.
  Result<std::string> listen(Transport& transport, const std::string& address);
  // Sent with every answer; see "every message of the master carries its epoch".
  void set_epoch(std::uint64_t epoch);
  // Stops accepting, closes connections, waits for running handlers (at most timeout_ns). The destructor
  // closes too, and does not wait: what the handlers refer to must then outlive the executor's run.
  Task<> shutdown(std::int64_t timeout_ns);

  using RawHandler = std::function<Task<Result<std::string>>(std::string, CallContext&)>;

 private:
  void add(std::uint16_t method, RawHandler handler);
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with the coroutines that serve
};

struct CallOptions {
  std::int64_t timeout_ns = 10 * kSecond_ns;  // over all tries
  // Reconnect and send again when the connection is lost or cannot be made, until the timeout. The server
  // knows (client, request id) and is_retry, so that a mutation is not done twice.
  bool retry = true;
  std::vector<UniqueFd>* descriptors = nullptr;  // receives the descriptors of the answer
};

// One peer. Connects at the first call and again after a loss (with back-off from 10 ms to 500 ms).
class RpcClient {
 public:
  RpcClient(Executor& executor, Transport& transport, std::string address, std::uint64_t client_id);
  ~RpcClient();

  template <class Method>
  Task<Result<typename Method::Response>> call(typename Method::Request request, CallOptions options);

  // The highest epoch seen in answers. One with a lower epoch comes from a master that was replaced: it is
  // refused, the connection dropped, and the call tried again; kStaleEpoch if it finds no better one in time.
  [[nodiscard]] std::uint64_t epoch() const;
  [[nodiscard]] bool connected() const;
  [[nodiscard]] std::uint64_t client_id() const;
  // Drops the connection and goes on at another address of the same server (its Unix socket).
  void move_to(std::string address);
  // Ends: calls under way get kCancelled.
  void close();

 private:
  Task<Result<std::string>> call_raw(std::uint16_t method, std::string message, CallOptions options);
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

namespace internal {

template <class Method, class Handler>
Task<Result<std::string>> serve(Handler& handler, std::string message, CallContext& context) {
  typename Method::Request request;
  if (!request.ParseFromString(message)) co_return Error(Errc::kCorrupt, "cannot parse the request");
  Result<typename Method::Response> response = co_await handler(std::move(request), context);
  if (!response) co_return std::move(response).error();
  std::string out;
  response.value().SerializeToString(&out);
  co_return out;
}

}  // namespace internal

template <class Method, class Handler>
void RpcServer::handle(Handler handler) {
  auto shared = std::make_shared<Handler>(std::move(handler));
  add(Method::kNumber, [shared](std::string message, CallContext& context) {
    return internal::serve<Method>(*shared, std::move(message), context);
  });
}

template <class Method>
Task<Result<typename Method::Response>> RpcClient::call(typename Method::Request request,
                                                        CallOptions options) {
  std::string message;
  request.SerializeToString(&message);
  Result<std::string> reply = co_await call_raw(Method::kNumber, std::move(message), options);
  if (!reply) co_return std::move(reply).error();
  typename Method::Response response;
  if (!response.ParseFromString(reply.value())) co_return Error(Errc::kCorrupt, "cannot parse the answer");
  co_return response;
}

}  // namespace gradfs
