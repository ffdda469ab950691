// A simulated world: an executor in virtual time, a network, and nodes on it.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/net/rpc.h"
#include "fs/net/sim.h"
#include "fs/net/sync.h"

// ASSERT for coroutines, which cannot `return`.
#define CO_ASSERT(condition)                    \
  if (!(condition)) {                           \
    ADD_FAILURE() << #condition << " is false"; \
    co_return;                                  \
  }

namespace gradfs {

// The seeds of a test: 1 to `count`, or the one in GRADFS_SIM_SEED, to see a failed run again.
inline std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const char* one = std::getenv("GRADFS_SIM_SEED")) return {std::strtoull(one, nullptr, 10)};
  std::vector<std::uint64_t> all;
  for (std::uint64_t seed = 1; seed <= count; ++seed) all.push_back(seed);
  return all;
}

struct World {
  World(std::uint64_t seed, SimOptions options)
      : executor(Executor::Time::kSimulated), scope(executor), network(executor, seed, options) {}

  std::int64_t now_ns() { return executor.clock().now_ns(); }

  // Until the task has ended, at most an hour of virtual time.
  void run(Task<> task) {
    auto ended = std::make_shared<bool>(false);
    scope.spawn(note_end(std::move(task), ended));
    EXPECT_TRUE(network.run_until([ended] { return *ended; }, 3600 * kSecond_ns)) << "the task did not end";
  }

  Executor executor;
  Scope scope;
  SimNetwork network;

 private:
  static Task<> note_end(Task<> task, std::shared_ptr<bool> ended) {
    co_await std::move(task);
    *ended = true;
  }
};

struct Seen {
  std::uint64_t client;
  std::uint64_t request_id;
  bool is_retry;
};

// A server that answers a lookup with the number it was asked for, and an open with a descriptor.
class EchoNode {
 public:
  EchoNode(World& world, const std::string& host, const std::string& path = "")
      : world_(world), server_(world.executor) {
    server_.handle<rpc::Lookup>([this](wire::LookupRequest request, CallContext& context) {
      return lookup(std::move(request), context);
    });
    server_.handle<rpc::OpenImage>(
        [this](wire::OpenImageRequest, CallContext& context) { return open_image(context); });
    auto listening = server_.listen(world.network.host(host), path.empty() ? host + ":7400" : path);
    EXPECT_TRUE(listening) << listening.error().message();
  }

  std::int64_t work_ns = 0;
  std::vector<Seen> seen;
  int last_uid = -2;

 private:
  Task<Result<wire::AttrResponse>> lookup(wire::LookupRequest request, CallContext& context) {
    seen.push_back({context.client, context.request_id, context.is_retry});
    last_uid = context.peer_uid;
    if (work_ns > 0) co_await world_.executor.clock().sleep_ns(work_ns);
    wire::AttrResponse response;
    response.mutable_attr()->set_inode(request.parent());
    co_return response;
  }

  Task<Result<wire::OpenImageResponse>> open_image(CallContext& context) {
    last_uid = context.peer_uid;
    UniqueFd fd(::memfd_create("image", MFD_CLOEXEC));
    GRADFS_CO_TRYV(write_fully_at(fd.get(), std::as_bytes(std::span("d", 1)), 0));
    context.reply_descriptors.push_back(std::move(fd));
    co_return wire::OpenImageResponse();
  }

  World& world_;
  RpcServer server_;
};

inline Task<Result<std::uint64_t>> echo(RpcClient& client, std::uint64_t number, std::int64_t timeout_ns) {
  wire::LookupRequest request;
  request.set_parent(number);
  const CallOptions options{.timeout_ns = timeout_ns};
  auto reply = co_await client.call<rpc::Lookup>(std::move(request), options);
  if (!reply) co_return std::move(reply).error();
  co_return reply.value().attr().inode();
}

}  // namespace gradfs
