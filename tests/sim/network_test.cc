// The simulated network itself: order, loss, partitions, crashes, descriptors, and that a seed reproduces a
// run.
#include <sys/mman.h>

#include "fs/net/rpc.h"
#include "fs/net/sim.h"
#include "tests/sim/harness.h"

namespace gradfs {
namespace {

TEST(SimNetwork, EchoesInVirtualTime) {
  World world(1, {});
  EchoNode node(world, "alpha");
  RpcClient client(world.executor, world.network.host("beta"), "alpha:7400", 9);
  const std::int64_t start_ns = world.now_ns();
  world.run([](World& world, EchoNode& node, RpcClient& client) -> Task<> {
    for (std::uint64_t i = 0; i < 100; ++i) {
      auto reply = co_await echo(client, i, kSecond_ns);
      CO_ASSERT(reply);
      EXPECT_EQ(reply.value(), i);
    }
    EXPECT_EQ(node.seen.size(), 100u);
    EXPECT_EQ(node.last_uid, -1);
  }(world, node, client));
  const std::int64_t took_ns = world.now_ns() - start_ns;
  EXPECT_GE(took_ns, 200 * SimOptions().delay_min_ns);
  EXPECT_LE(took_ns, 204 * SimOptions().delay_max_ns);
}

TEST(SimNetwork, PathsAreOfTheirHostAndCarryDescriptors) {
  World world(2, {});
  EchoNode node(world, "alpha", "/run/worker");
  RpcClient near(world.executor, world.network.host("alpha"), "/run/worker", 1);
  RpcClient far(world.executor, world.network.host("beta"), "/run/worker", 2);
  world.run([](World& world, EchoNode& node, RpcClient& near, RpcClient& far) -> Task<> {
    std::vector<UniqueFd> descriptors;
    auto reply = co_await near.call<rpc::OpenImage>(wire::OpenImageRequest(), {.descriptors = &descriptors});
    CO_ASSERT(reply && descriptors.size() == 1);
    char byte = 0;
    EXPECT_TRUE(read_fully_at(descriptors[0].get(), std::as_writable_bytes(std::span(&byte, 1)), 0));
    EXPECT_EQ(byte, 'd');
    EXPECT_EQ(node.last_uid, 0);
    auto none = co_await echo(far, 1, kSecond_ns);
    CO_ASSERT(!none);
    EXPECT_EQ(none.error().code, Errc::kUnavailable);
  }(world, node, near, far));
}

TEST(SimNetwork, DescriptorsDoNotPassBetweenHosts) {
  World world(3, {});
  EchoNode node(world, "alpha");
  RpcClient client(world.executor, world.network.host("beta"), "alpha:7400", 1);
  world.run([](RpcClient& client) -> Task<> {
    auto reply = co_await client.call<rpc::OpenImage>(wire::OpenImageRequest(), {});
    CO_ASSERT(!reply);
    EXPECT_EQ(reply.error().code, Errc::kNotSupported);
    EXPECT_TRUE(co_await echo(client, 1, kSecond_ns));
  }(client));
}

TEST(SimNetwork, AddressesAreThoseOfTheHost) {
  World world(4, {});
  Transport& alpha = world.network.host("alpha");
  auto first = alpha.listen("alpha:0");
  auto second = alpha.listen("alpha:0");
  ASSERT_TRUE(first && second);
  EXPECT_NE(first.value()->address(), second.value()->address());
  EXPECT_FALSE(alpha.listen(first.value()->address()));
  EXPECT_FALSE(alpha.listen("beta:7400"));
  first.value()->close();
  EXPECT_TRUE(alpha.listen(first.value()->address()));
}

TEST(SimNetwork, APartitionStopsCallsUntilItHeals) {
  World world(5, {});
  EchoNode node(world, "alpha");
  RpcClient cut(world.executor, world.network.host("beta"), "alpha:7400", 1);
  RpcClient other(world.executor, world.network.host("gamma"), "alpha:7400", 2);
  world.run([](World& world, EchoNode& node, RpcClient& cut, RpcClient& other) -> Task<> {
    EXPECT_TRUE(co_await echo(cut, 1, kSecond_ns));
    EXPECT_TRUE(co_await echo(other, 1, kSecond_ns));
    world.network.partition("alpha", "beta");
    const std::int64_t start_ns = world.now_ns();
    const std::size_t seen = node.seen.size();
    EXPECT_FALSE(co_await echo(cut, 2, 5 * kSecond_ns));
    EXPECT_LE(world.now_ns() - start_ns, 5 * kSecond_ns);
    EXPECT_EQ(node.seen.size(), seen);
    EXPECT_TRUE(co_await echo(other, 2, kSecond_ns));
    world.network.heal("beta", "alpha");
    EXPECT_TRUE(co_await echo(cut, 3, 5 * kSecond_ns));
  }(world, node, cut, other));
}

TEST(SimNetwork, ACallThatSpansAPartitionIsRetriedWithItsId) {
  World world(6, {});
  EchoNode node(world, "alpha");
  node.work_ns = 100 * kMillisecond_ns;
  RpcClient client(world.executor, world.network.host("beta"), "alpha:7400", 1);
  world.run([](World& world, EchoNode& node, RpcClient& client) -> Task<> {
    Scope calls(world.executor);
    calls.spawn(
        [](RpcClient& client) -> Task<> { EXPECT_TRUE(co_await echo(client, 7, 20 * kSecond_ns)); }(client));
    co_await world.executor.clock().sleep_ns(50 * kMillisecond_ns);
    world.network.partition("alpha", "beta");
    co_await world.executor.clock().sleep_ns(2 * kSecond_ns);
    world.network.heal_all();
    EXPECT_TRUE(co_await calls.join(-1));
    CO_ASSERT(node.seen.size() == 2);
    EXPECT_EQ(node.seen[0].request_id, node.seen[1].request_id);
    EXPECT_FALSE(node.seen[0].is_retry);
    EXPECT_TRUE(node.seen[1].is_retry);
  }(world, node, client));
}

TEST(SimNetwork, ACrashEndsItsConnectionsAndListeners) {
  World world(7, {});
  auto node = std::make_unique<EchoNode>(world, "alpha");
  RpcClient client(world.executor, world.network.host("beta"), "alpha:7400", 1);
  world.run([](World& world, std::unique_ptr<EchoNode>& node, RpcClient& client) -> Task<> {
    EXPECT_TRUE(co_await echo(client, 1, kSecond_ns));
    world.network.crash("alpha");
    EXPECT_FALSE(co_await echo(client, 2, 3 * kSecond_ns));
    node = std::make_unique<EchoNode>(world, "alpha");
    EXPECT_TRUE(co_await echo(client, 3, 3 * kSecond_ns));
    EXPECT_EQ(node->seen.size(), 1u);
  }(world, node, client));
}

TEST(SimNetwork, NobodyWaitsForAnythingEndsTheRun) {
  World world(8, {});
  EXPECT_FALSE(world.network.run_until([] { return false; }, 1'000'000 * kSecond_ns));
  EXPECT_TRUE(world.network.run_until([] { return true; }, 0));
}

// Echo under loss: some clients, connections that break all the time, partitions that come and go.
struct LossRun {
  std::vector<std::string> trace;
  std::size_t good = 0;
  std::size_t failed = 0;
  std::size_t retries = 0;
};

Task<> call_many(World& world, RpcClient& client, LossRun& result) {
  for (std::uint64_t i = 0; i < 40; ++i) {
    const std::int64_t timeout_ns =
        draw_between(world.network.random(), 10 * kMillisecond_ns, 20 * kSecond_ns);
    const std::int64_t start_ns = world.now_ns();
    auto reply = co_await echo(client, i, timeout_ns);
    EXPECT_LE(world.now_ns() - start_ns, timeout_ns) << "beyond its deadline";
    if (reply) EXPECT_EQ(reply.value(), i);
    ++(reply ? result.good : result.failed);
  }
}

Task<> cut_and_heal(World& world, bool& ended) {
  Random& random = world.network.random();
  while (!ended) {
    co_await world.executor.clock().sleep_ns(draw_between(random, 0, 2 * kSecond_ns));
    const std::string host = "client" + std::to_string(draw_between(random, 0, 3));
    world.network.partition("alpha", host);
    co_await world.executor.clock().sleep_ns(draw_between(random, 0, 3 * kSecond_ns));
    world.network.heal("alpha", host);
  }
}

LossRun run_under_loss(std::uint64_t seed) {
  World world(seed, {.connection_loss = 0.03, .connect_loss = 0.1, .trace = true});
  EchoNode node(world, "alpha");
  node.work_ns = 3 * kMillisecond_ns;
  LossRun result;
  std::vector<std::unique_ptr<RpcClient>> clients;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Transport& transport = world.network.host("client" + std::to_string(i));
    clients.push_back(std::make_unique<RpcClient>(world.executor, transport, "alpha:7400", i + 1));
  }
  bool ended = false;
  world.scope.spawn(cut_and_heal(world, ended));
  world.run([](World& world, std::vector<std::unique_ptr<RpcClient>>& clients, LossRun& result) -> Task<> {
    Scope calls(world.executor);
    for (const auto& client : clients) calls.spawn(call_many(world, *client, result));
    co_await calls.join(-1);
  }(world, clients, result));
  ended = true;
  std::map<std::pair<std::uint64_t, std::uint64_t>, bool> known;
  for (const Seen& seen : node.seen) {
    // Whoever comes again says so.
    const auto [place, is_new] = known.emplace(std::pair(seen.client, seen.request_id), true);
    if (!is_new) EXPECT_TRUE(seen.is_retry);
    result.retries += seen.is_retry ? 1 : 0;
  }
  result.trace = world.network.trace();
  return result;
}

TEST(SimNetwork, EveryCallEndsByItsDeadlineUnderLoss) {
  std::size_t good = 0;
  std::size_t failed = 0;
  std::size_t retries = 0;
  for (const std::uint64_t seed : seeds(100)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const LossRun result = run_under_loss(seed);
    EXPECT_EQ(result.good + result.failed, 160u);
    good += result.good;
    failed += result.failed;
    retries += result.retries;
    if (::testing::Test::HasFailure()) break;
  }
  EXPECT_GT(good, failed);
  EXPECT_GT(failed, 0u);
  EXPECT_GT(retries, 0u);
}

TEST(SimNetwork, ASeedReproducesItsRun) {
  const LossRun first = run_under_loss(11);
  const LossRun again = run_under_loss(11);
  const LossRun other = run_under_loss(12);
  ASSERT_GT(first.trace.size(), 300u);
  EXPECT_EQ(first.trace, again.trace);
  EXPECT_NE(first.trace, other.trace);
}

}  // namespace
}  // namespace gradfs
