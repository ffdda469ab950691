// RPC over real sockets: each test runs over TCP and over Unix sockets.
#include "fs/net/rpc.h"

#include <memory>

#include "tests/net/harness.h"

namespace gradfs {
namespace {

class RpcTest : public ExecutorTest, public ::testing::WithParamInterface<bool> {
 public:
  RpcTest() : transport_(make_socket_transport(executor_)), service_(executor_) { start_server(); }

  static bool is_unix() { return GetParam(); }

  void start_server() {
    server_ = std::make_unique<RpcServer>(executor_);
    service_.add_to(*server_);
    if (address_.empty()) address_ = is_unix() ? directory_ + "/socket" : "127.0.0.1:0";
    auto listening = server_->listen(*transport_, address_);
    ASSERT_TRUE(listening) << listening.error().message();
    address_ = listening.value();
  }

  std::unique_ptr<RpcClient> make_client(std::uint64_t id = 7) {
    return std::make_unique<RpcClient>(executor_, *transport_, address_, id);
  }

  std::unique_ptr<Transport> transport_;
  EchoService service_;
  std::string address_;
  std::unique_ptr<RpcServer> server_;
};

INSTANTIATE_TEST_SUITE_P(Sockets, RpcTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Unix" : "Tcp"; });

TEST_P(RpcTest, EchoesAndTellsTheHandlerWhoCalls) {
  const auto client = make_client(0xfeed);
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    const std::int64_t before_ns = t.executor_.clock().now_ns();
    auto reply = co_await call_echo(client, "hello", 42, {.timeout_ns = 5 * kSecond_ns});
    CO_ASSERT(reply);
    EXPECT_EQ(reply.value().inline_data(), "hello");
    EXPECT_EQ(reply.value().attr().inode(), 42u);
    EXPECT_EQ(t.service_.seen.back().client, 0xfeedu);
    EXPECT_FALSE(t.service_.seen.back().is_retry);
    EXPECT_EQ(t.service_.last.peer_uid, is_unix() ? static_cast<int>(::getuid()) : -1);
    EXPECT_GT(t.service_.last.deadline_ns, before_ns + 4 * kSecond_ns);
    EXPECT_LT(t.service_.last.deadline_ns, before_ns + 6 * kSecond_ns);
    EXPECT_TRUE(client.connected());
  }(*this, *client));
}

Task<> echo_and_count(RpcClient& client, std::uint64_t number, std::string name,
                      std::vector<std::uint64_t>& ended) {
  auto reply = co_await call_echo(client, name, number, {});
  CO_ASSERT(reply);
  EXPECT_EQ(reply.value().attr().inode(), number);
  EXPECT_EQ(reply.value().inline_data(), name);
  ended.push_back(number);
}

TEST_P(RpcTest, ManyCallsShareAConnectionAndOvertakeEachOther) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    std::vector<std::uint64_t> ended;
    Scope calls(t.executor_);
    calls.spawn(echo_and_count(client, 0, "after 2000", ended));
    for (std::uint64_t i = 1; i <= 2000; ++i) {
      calls.spawn(echo_and_count(client, i, std::string(i % 977, 'x'), ended));
    }
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    CO_ASSERT(ended.size() == 2001);
    EXPECT_EQ(ended.back(), 0u);
  }(*this, *client));
}

TEST_P(RpcTest, AConnectionHasABoundedNumberOfCallsUnderWay) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    std::vector<std::uint64_t> ended;
    Scope calls(t.executor_);
    for (std::uint64_t i = 0; i < 600; ++i) calls.spawn(echo_and_count(client, i, "sleep 20", ended));
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    EXPECT_EQ(ended.size(), 600u);
    EXPECT_EQ(t.service_.running_max, 256u);
  }(*this, *client));
}

TEST_P(RpcTest, CarriesBigMessagesBothWays) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    Scope calls(t.executor_);
    std::vector<std::uint64_t> ended;
    for (const std::size_t size : {std::size_t{0}, std::size_t{65'472}, std::size_t{65'536},
                                   std::size_t{1} << 20, std::size_t{8'000'000}}) {
      calls.spawn(echo_and_count(client, size, std::string(size, static_cast<char>('a' + size % 20)), ended));
    }
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    EXPECT_EQ(ended.size(), 5u);
  }(*this, *client));
}

TEST_P(RpcTest, AMessageThatIsTooBigFailsItsCallOnly) {
  const auto client = make_client();
  run([](RpcClient& client) -> Task<> {
    auto request_too_big = co_await call_echo(client, std::string(kMaxMessageBytes, 'b'), 1, {});
    CO_ASSERT(!request_too_big);
    EXPECT_EQ(request_too_big.error().code, Errc::kTooBig);
    auto answer_too_big = co_await call_echo(client, "huge", 1, {});
    CO_ASSERT(!answer_too_big);
    EXPECT_EQ(answer_too_big.error().code, Errc::kTooBig);
    EXPECT_TRUE(client.connected());
    EXPECT_TRUE(co_await call_echo(client, "still there", 1, {}));
  }(*client));
}

TEST_P(RpcTest, ErrorsCarryCodeAndDetail) {
  const auto client = make_client();
  run([](RpcClient& client) -> Task<> {
    auto reply = co_await call_echo(client, "fail", 1, {});
    CO_ASSERT(!reply);
    EXPECT_EQ(reply.error().code, Errc::kNotEmpty);
    EXPECT_EQ(reply.error().detail, "the detail");
    auto unknown = co_await client.call<rpc::Sync>(wire::Empty(), {});
    CO_ASSERT(!unknown);
    EXPECT_EQ(unknown.error().code, Errc::kNotSupported);
    EXPECT_TRUE(client.connected());
  }(*client));
}

TEST_P(RpcTest, DescriptorsArriveAndWorkOnUnixAndAreRefusedOnTcp) {
  const auto client = make_client();
  service_.descriptors = 3;
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    for (std::uint64_t inode = 100; inode < 120; ++inode) {
      std::vector<UniqueFd> descriptors;
      wire::OpenImageRequest request;
      request.set_inode(inode);
      auto reply = co_await client.call<rpc::OpenImage>(std::move(request), {.descriptors = &descriptors});
      if (!is_unix()) {
        CO_ASSERT(!reply);
        EXPECT_EQ(reply.error().code, Errc::kNotSupported);
        continue;
      }
      CO_ASSERT(reply && descriptors.size() == 3);
      for (const UniqueFd& fd : descriptors) {
        std::string text(reply.value().size(), '\0');
        EXPECT_TRUE(read_fully_at(fd.get(), std::as_writable_bytes(std::span(text)), 0));
        EXPECT_EQ(text, std::to_string(inode));
      }
    }
    t.service_.descriptors = kMaxDescriptors + 1;
    auto too_many = co_await client.call<rpc::OpenImage>(wire::OpenImageRequest(), {});
    CO_ASSERT(!too_many);
    EXPECT_EQ(too_many.error().code, is_unix() ? Errc::kInvalid : Errc::kNotSupported);
    EXPECT_TRUE(client.connected());
  }(*this, *client));
}

Task<> open_image_among_others(RpcClient& client, std::uint64_t inode, std::size_t& good) {
  std::vector<UniqueFd> descriptors;
  wire::OpenImageRequest request;
  request.set_inode(inode);
  auto reply = co_await client.call<rpc::OpenImage>(std::move(request), {.descriptors = &descriptors});
  CO_ASSERT(reply && descriptors.size() == 2);
  std::string text(reply.value().size(), '\0');
  EXPECT_TRUE(read_fully_at(descriptors[1].get(), std::as_writable_bytes(std::span(text)), 0));
  if (text == std::to_string(inode)) ++good;
}

TEST_P(RpcTest, DescriptorsStayWithTheirFrames) {
  if (!is_unix()) return;
  const auto client = make_client();
  service_.descriptors = 2;
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    Scope calls(t.executor_);
    std::size_t good = 0;
    std::vector<std::uint64_t> ended;
    for (std::uint64_t i = 0; i < 200; ++i) {
      calls.spawn(open_image_among_others(client, i, good));
      calls.spawn(echo_and_count(client, i, std::string(i * 997, 'e'), ended));
    }
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    EXPECT_EQ(good, 200u);
    EXPECT_EQ(ended.size(), 200u);
  }(*this, *client));
}

TEST_P(RpcTest, ACallEndsAtItsDeadlineAndTheConnectionStays) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    const std::int64_t start_ns = t.executor_.clock().now_ns();
    auto reply = co_await call_echo(client, "sleep 300", 1, {.timeout_ns = 50 * kMillisecond_ns});
    const std::int64_t took_ns = t.executor_.clock().now_ns() - start_ns;
    CO_ASSERT(!reply);
    EXPECT_EQ(reply.error().code, Errc::kTimeout);
    EXPECT_GE(took_ns, 50 * kMillisecond_ns);
    EXPECT_LT(took_ns, 250 * kMillisecond_ns);
    co_await t.executor_.clock().sleep_ns(400 * kMillisecond_ns);  // the late answer comes and is ignored
    EXPECT_TRUE(co_await call_echo(client, "next", 2, {}));
    EXPECT_EQ(t.service_.seen.size(), 2u);
  }(*this, *client));
}

TEST_P(RpcTest, RetriesOverARestartOfTheServerWithTheSameId) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    Scope calls(t.executor_);
    std::vector<std::uint64_t> ended;
    calls.spawn(echo_and_count(client, 5, "sleep 100", ended));
    co_await t.executor_.clock().sleep_ns(30 * kMillisecond_ns);
    co_await t.server_->shutdown(kSecond_ns);
    t.server_.reset();
    co_await t.executor_.clock().sleep_ns(100 * kMillisecond_ns);
    EXPECT_TRUE(ended.empty());
    t.start_server();
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    EXPECT_EQ(ended.size(), 1u);
    CO_ASSERT(t.service_.seen.size() == 2);
    EXPECT_FALSE(t.service_.seen[0].is_retry);
    EXPECT_TRUE(t.service_.seen[1].is_retry);
    EXPECT_EQ(t.service_.seen[0].request_id, t.service_.seen[1].request_id);
    EXPECT_EQ(t.service_.seen[0].client, t.service_.seen[1].client);
  }(*this, *client));
}

TEST_P(RpcTest, WaitsForAServerThatStartsLateAndThatIsNoRetry) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    co_await t.server_->shutdown(kSecond_ns);
    t.server_.reset();
    auto at_once = co_await call_echo(client, "x", 1, {.retry = false});
    CO_ASSERT(!at_once);
    EXPECT_EQ(at_once.error().code, Errc::kUnavailable);
    const std::int64_t start_ns = t.executor_.clock().now_ns();
    auto in_vain = co_await call_echo(client, "x", 1, {.timeout_ns = 200 * kMillisecond_ns});
    CO_ASSERT(!in_vain);
    EXPECT_EQ(in_vain.error().code, Errc::kUnavailable);
    EXPECT_LT(t.executor_.clock().now_ns() - start_ns, 300 * kMillisecond_ns);
    Scope calls(t.executor_);
    std::vector<std::uint64_t> ended;
    for (std::uint64_t i = 0; i < 50; ++i) calls.spawn(echo_and_count(client, i, "late", ended));
    co_await t.executor_.clock().sleep_ns(100 * kMillisecond_ns);
    t.start_server();
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    CO_ASSERT(t.service_.seen.size() == 50);
    for (const auto& seen : t.service_.seen) EXPECT_FALSE(seen.is_retry);
  }(*this, *client));
}

TEST_P(RpcTest, ACallWithoutRetryFailsWithItsConnection) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    Scope stop(t.executor_);
    stop.spawn([](RpcTest& t) -> Task<> {
      co_await t.executor_.clock().sleep_ns(30 * kMillisecond_ns);
      co_await t.server_->shutdown(kSecond_ns);
    }(t));
    auto reply = co_await call_echo(client, "sleep 100", 1, {.retry = false});
    CO_ASSERT(!reply);
    EXPECT_EQ(reply.error().code, Errc::kUnavailable);
    EXPECT_FALSE(client.connected());
    EXPECT_TRUE(co_await stop.join(kTestLimit_ns));
    EXPECT_EQ(t.service_.running, 0u);  // shutdown waited for the handler
  }(*this, *client));
}

TEST_P(RpcTest, ShutdownDoesNotWaitLongerThanItsLimit) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    std::vector<std::uint64_t> ended;
    t.scope_.spawn([](RpcClient& client) -> Task<> {
      EXPECT_FALSE(co_await call_echo(client, "sleep 300", 1, {.retry = false}));
    }(client));
    co_await t.executor_.clock().sleep_ns(30 * kMillisecond_ns);
    const std::int64_t start_ns = t.executor_.clock().now_ns();
    co_await t.server_->shutdown(50 * kMillisecond_ns);
    EXPECT_LT(t.executor_.clock().now_ns() - start_ns, 200 * kMillisecond_ns);
    EXPECT_EQ(t.service_.running, 1u);
    t.server_.reset();  // its handler still runs, and ends on its own
    co_await t.executor_.clock().sleep_ns(400 * kMillisecond_ns);
    EXPECT_EQ(t.service_.running, 0u);
  }(*this, *client));
}

TEST_P(RpcTest, CloseCancelsCallsUnderWay) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    t.scope_.spawn([](RpcTest& t, RpcClient& client) -> Task<> {
      co_await t.executor_.clock().sleep_ns(30 * kMillisecond_ns);
      client.close();
    }(t, client));
    auto reply = co_await call_echo(client, "sleep 5000", 1, {});
    CO_ASSERT(!reply);
    EXPECT_EQ(reply.error().code, Errc::kCancelled);
    auto after = co_await call_echo(client, "x", 1, {});
    CO_ASSERT(!after);
    EXPECT_EQ(after.error().code, Errc::kCancelled);
    co_await t.server_->shutdown(0);
  }(*this, *client));
}

TEST_P(RpcTest, RefusesAnswersOfAnEarlierEpoch) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    t.server_->set_epoch(5);
    EXPECT_TRUE(co_await call_echo(client, "x", 1, {}));
    EXPECT_EQ(client.epoch(), 5u);
    t.server_->set_epoch(4);
    auto reply = co_await call_echo(client, "x", 1, {.timeout_ns = 200 * kMillisecond_ns});
    CO_ASSERT(!reply);
    EXPECT_EQ(reply.error().code, Errc::kStaleEpoch);
    EXPECT_EQ(client.epoch(), 5u);
    EXPECT_EQ(t.service_.last.peer_epoch, 5u);
    t.server_->set_epoch(6);
    EXPECT_TRUE(co_await call_echo(client, "x", 1, {}));
    EXPECT_EQ(client.epoch(), 6u);
  }(*this, *client));
}

TEST_P(RpcTest, MovesToAnotherAddressOfTheServer) {
  const auto client = make_client();
  run([](RpcTest& t, RpcClient& client) -> Task<> {
    EXPECT_TRUE(co_await call_echo(client, "x", 1, {}));
    auto second = t.server_->listen(*t.transport_, t.directory_ + "/second");
    CO_ASSERT(second);
    client.move_to(second.value());
    EXPECT_FALSE(client.connected());
    EXPECT_TRUE(co_await call_echo(client, "x", 1, {}));
    EXPECT_EQ(t.service_.last.peer_uid, static_cast<int>(::getuid()));
  }(*this, *client));
}

TEST_P(RpcTest, WhatIsUnderWayIsDestroyedWithTheExecutor) {
  const auto client = make_client();
  for (std::uint64_t i = 0; i < 20; ++i) {
    scope_.spawn([](RpcClient& client, std::uint64_t i) -> Task<> {
      std::string text = i % 2 == 0 ? "sleep 60000" : std::string(4'000'000, 'x');  // a name: g++ 12
      (void)co_await call_echo(client, std::move(text), i, {});
    }(*client, i));
  }
  run([](RpcTest& t) -> Task<> { co_await t.executor_.clock().sleep_ns(20 * kMillisecond_ns); }(*this));
  EXPECT_GT(service_.running, 0u);
}

}  // namespace
}  // namespace gradfs
