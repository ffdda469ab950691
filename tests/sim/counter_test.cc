// Exactly once over a network that loses things: a counter whose server remembers (client, request id) with
// each count, in one step, and gives a retry the outcome of the first try. The server's host crashes and
// comes back with what it had made durable.
#include <set>

#include "tests/sim/harness.h"

namespace gradfs {
namespace {

using Identity = std::pair<std::uint64_t, std::uint64_t>;

// What survives a crash.
struct Durable {
  std::uint64_t count = 0;
  std::map<Identity, std::uint64_t> outcomes;
  std::map<Identity, int> applied;  // for the test: how often each request counted
};

class CounterServer {
 public:
  CounterServer(World& world, Durable& durable, bool remembers)
      : world_(world), durable_(durable), remembers_(remembers), server_(world.executor) {
    server_.handle<rpc::Lookup>(
        [this](wire::LookupRequest, CallContext& context) { return increment(context, alive_); });
    auto listening = server_.listen(world.network.host("server"), "server:7400");
    EXPECT_TRUE(listening) << listening.error().message();
  }
  ~CounterServer() { *alive_ = false; }

 private:
  // Work before and after the commit, so that crashes and retries fall on all sides of it.
  Task<Result<wire::AttrResponse>> increment(CallContext& context, std::shared_ptr<bool> alive) {
    const Identity identity{context.client, context.request_id};
    World& world = world_;
    co_await work(world);
    if (!*alive) co_return Error(Errc::kCancelled, "crashed");
    auto known = durable_.outcomes.find(identity);
    if (known == durable_.outcomes.end() || !remembers_) {
      ++durable_.applied[identity];
      known = durable_.outcomes.insert_or_assign(identity, ++durable_.count).first;
    }
    wire::AttrResponse response;
    response.mutable_attr()->set_inode(known->second);
    co_await work(world);
    co_return response;
  }

  static Task<> work(World& world) {
    co_await world.executor.clock().sleep_ns(draw_between(world.network.random(), 0, 5 * kMillisecond_ns));
  }

  World& world_;
  Durable& durable_;
  const bool remembers_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  RpcServer server_;
};

struct Outcome {
  std::uint64_t count = 0;
  std::size_t distinct = 0;
  std::size_t calls = 0;
  std::size_t acknowledged = 0;
  std::size_t counted_twice = 0;
  bool values_are_unique = true;
};

struct Counting {
  World world;
  Durable durable;
  std::unique_ptr<CounterServer> server;
  std::vector<std::unique_ptr<RpcClient>> clients;
  std::multiset<std::uint64_t> values;
  std::size_t calls = 0;
  bool ended = false;

  explicit Counting(std::uint64_t seed)
      : world(seed, {.connection_loss = 0.02, .connect_loss = 0.05, .notice_max_ns = 500 * kMillisecond_ns}) {
  }
};

Task<> count_many(Counting& c, RpcClient& client) {
  for (int i = 0; i < 20; ++i) {
    const std::int64_t timeout_ns = draw_between(c.world.network.random(), kSecond_ns, 30 * kSecond_ns);
    const std::int64_t start_ns = c.world.now_ns();
    ++c.calls;
    auto value = co_await echo(client, 0, timeout_ns);
    EXPECT_LE(c.world.now_ns() - start_ns, timeout_ns) << "beyond its deadline";
    if (value) c.values.insert(value.value());
  }
}

Task<> count_on_all(Counting& c) {
  Scope calls(c.world.executor);
  for (const auto& client : c.clients) {
    for (int i = 0; i < 2; ++i) calls.spawn(count_many(c, *client));
  }
  co_await calls.join(-1);
}

Task<> make_trouble(Counting& c, bool remembers) {
  Clock& clock = c.world.executor.clock();
  Random& random = c.world.network.random();
  while (!c.ended) {
    co_await clock.sleep_ns(draw_between(random, 0, kSecond_ns));
    const std::string host = "client" + std::to_string(draw_between(random, 0, 2));
    if (draw_chance(random, 0.5)) {
      c.world.network.crash("server");
      c.server.reset();
      co_await clock.sleep_ns(draw_between(random, 0, 2 * kSecond_ns));
      c.server = std::make_unique<CounterServer>(c.world, c.durable, remembers);
    } else {
      c.world.network.partition("server", host);
      co_await clock.sleep_ns(draw_between(random, 0, 2 * kSecond_ns));
      c.world.network.heal("server", host);
    }
  }
}

Outcome run_counter(std::uint64_t seed, bool remembers) {
  Counting c(seed);
  c.server = std::make_unique<CounterServer>(c.world, c.durable, remembers);
  for (std::uint64_t i = 0; i < 3; ++i) {
    Transport& transport = c.world.network.host("client" + std::to_string(i));
    c.clients.push_back(std::make_unique<RpcClient>(c.world.executor, transport, "server:7400", i + 1));
  }
  c.world.scope.spawn(make_trouble(c, remembers));
  c.world.run(count_on_all(c));
  c.ended = true;
  Outcome outcome;
  outcome.count = c.durable.count;
  outcome.distinct = c.durable.applied.size();
  outcome.calls = c.calls;
  outcome.acknowledged = c.values.size();
  for (const auto& [identity, times] : c.durable.applied) outcome.counted_twice += times > 1 ? 1 : 0;
  outcome.values_are_unique =
      std::set<std::uint64_t>(c.values.begin(), c.values.end()).size() == c.values.size();
  return outcome;
}

TEST(Counter, CountsExactlyOnceUnderLossPartitionsAndCrashes) {
  std::size_t acknowledged = 0;
  std::size_t calls = 0;
  for (const std::uint64_t seed : seeds(300)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Outcome outcome = run_counter(seed, true);
    EXPECT_EQ(outcome.counted_twice, 0u);
    EXPECT_EQ(outcome.count, outcome.distinct);
    EXPECT_TRUE(outcome.values_are_unique);
    EXPECT_LE(outcome.acknowledged, outcome.count);  // nothing is acknowledged that did not count
    EXPECT_LE(outcome.count, outcome.calls);
    EXPECT_EQ(outcome.calls, 120u);
    acknowledged += outcome.acknowledged;
    calls += outcome.calls;
    if (::testing::Test::HasFailure()) break;
  }
  EXPECT_GT(acknowledged, calls / 2);
}

// The run above would see it: a server that does not remember counts some requests twice.
TEST(Counter, WithoutMemorySomeRequestsCountTwice) {
  std::size_t counted_twice = 0;
  for (const std::uint64_t seed : seeds(20)) counted_twice += run_counter(seed, false).counted_twice;
  EXPECT_GT(counted_twice, 0u);
}

}  // namespace
}  // namespace gradfs
