// The socket transport at its edges: addresses, peers that send nonsense or take nothing.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstring>

#include "tests/net/harness.h"

namespace gradfs {
namespace {

class SocketTest : public ExecutorTest {
 public:
  SocketTest() : transport_(make_socket_transport(executor_)), service_(executor_) {}

  // A plain blocking Unix socket, connected to the path.
  UniqueFd connect_raw(const std::string& path) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }

  std::unique_ptr<Transport> transport_;
  EchoService service_;
};

TEST_F(SocketTest, ListensOnAFreePortAndSaysWhich) {
  for (const std::string host : {"127.0.0.1", "[::1]"}) {
    auto listener = transport_->listen(host + ":0");
    if (host == "[::1]" && !listener) continue;  // no IPv6 on this host
    ASSERT_TRUE(listener) << listener.error().message();
    const std::string address = listener.value()->address();
    EXPECT_TRUE(address.starts_with(host + ":"));
    EXPECT_NE(address, host + ":0");
    run([](SocketTest& t, std::string address) -> Task<> {
      auto connection = co_await t.transport_->connect(address, kSecond_ns);
      EXPECT_TRUE(connection) << connection.error().message();
    }(*this, address));
  }
}

// Where nothing listens, the kernel may connect a socket of the ephemeral range to itself: about once in as
// many tries as the range has ports. A client that held on to that would keep its server from coming back.
TEST_F(SocketTest, AClientNeverConnectsToItself) {
  run([](SocketTest& t) -> Task<> {
    // A free and even port: Linux takes even ports of the range (from 32768 on) for connect, odd ones for
    // bind.
    std::string address;
    for (int port = 40'000; address.empty() && port < 50'000; port += 2) {
      if (auto listener = t.transport_->listen("127.0.0.1:" + std::to_string(port))) {
        address = listener.value()->address();
      }
    }
    for (int k = 0; k < 60'000; ++k) {
      auto connection = co_await t.transport_->connect(address, kSecond_ns);
      CO_ASSERT(!connection);
      EXPECT_EQ(connection.error().code, Errc::kUnavailable);
    }
  }(*this));
}

TEST_F(SocketTest, RefusesAddressesThatAreNone) {
  for (const std::string address :
       {"", "7400", "localhost", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:9999999999", "127.0.0.1:74x0",
        "300.0.0.1:7400", "127.0.0.1:-1", ":7400"}) {
    auto listener = transport_->listen(address);
    ASSERT_FALSE(listener) << address;
    EXPECT_EQ(listener.error().code, Errc::kInvalid) << address;
  }
  auto long_path = transport_->listen("/tmp/" + std::string(110, 'p'));
  ASSERT_FALSE(long_path);
  EXPECT_EQ(long_path.error().code, Errc::kNameTooLong);
}

TEST_F(SocketTest, AListenerTakesItsOwnNameAwayAndNoOther) {
  const std::string path = directory_ + "/socket";
  auto first = transport_->listen(path);
  ASSERT_TRUE(first);
  auto second = transport_->listen(path);  // a restarted server takes over the name
  ASSERT_TRUE(second);
  first.value().reset();
  EXPECT_TRUE(std::filesystem::exists(path));
  second.value()->close();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(SocketTest, ABadFrameClosesItsConnectionAndNothingMore) {
  RpcServer server(executor_);
  service_.add_to(server);
  const std::string path = directory_ + "/socket";
  ASSERT_TRUE(server.listen(*transport_, path));
  RpcClient good(executor_, *transport_, path, 1);
  run([](SocketTest& t, RpcClient& good, std::string path) -> Task<> {
    EXPECT_TRUE(co_await call_echo(good, "before", 1, {}));
    std::array<std::byte, kFrameHeaderBytes> response{};
    FrameHeader header;
    header.kind = FrameKind::kResponse;  // a server takes requests only
    encode_frame_header(header, response);
    const std::string as_text(reinterpret_cast<char*>(response.data()), response.size());
    for (const std::string& bytes : {std::string(64, 'j'), std::string(200'000, '\0'), as_text}) {
      const UniqueFd bad = t.connect_raw(path);
      EXPECT_GT(::send(bad.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
      co_await t.executor_.clock().sleep_ns(30 * kMillisecond_ns);
      char byte = 0;
      const ssize_t n = ::recv(bad.get(), &byte, 1, MSG_DONTWAIT);
      EXPECT_TRUE(n == 0 || (n < 0 && errno == ECONNRESET)) << "still open";
    }
    EXPECT_TRUE(good.connected());
    EXPECT_TRUE(co_await call_echo(good, "after", 1, {}));
    EXPECT_EQ(t.service_.seen.size(), 2u);
    co_await t.executor_.clock().sleep_ns(0);
  }(*this, good, path));
}

TEST_F(SocketTest, DescriptorsThatNoFrameAnnouncedCloseTheConnection) {
  RpcServer server(executor_);
  service_.add_to(server);
  const std::string path = directory_ + "/socket";
  ASSERT_TRUE(server.listen(*transport_, path));
  run([](SocketTest& t, std::string path) -> Task<> {
    const UniqueFd bad = t.connect_raw(path);
    std::array<int, 12> descriptors{};
    descriptors.fill(bad.get());
    char byte = 'g';
    iovec vector{&byte, 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof descriptors);
    std::memcpy(CMSG_DATA(c), descriptors.data(), sizeof descriptors);
    EXPECT_EQ(::sendmsg(bad.get(), &message, MSG_NOSIGNAL), 1);
    co_await t.executor_.clock().sleep_ns(30 * kMillisecond_ns);
    const ssize_t n = ::recv(bad.get(), &byte, 1, MSG_DONTWAIT);
    EXPECT_TRUE(n == 0 || (n < 0 && errno == ECONNRESET)) << "still open";
  }(*this, path));
}

TEST_F(SocketTest, CallsEndInTimeWhereThePeerTakesNothing) {
  const std::string path = directory_ + "/deaf";
  auto listener = transport_->listen(path);  // nobody accepts: the kernel connects, and its buffer fills
  ASSERT_TRUE(listener);
  RpcClient client(executor_, *transport_, path, 1);
  run([](SocketTest& t, RpcClient& client) -> Task<> {
    Scope calls(t.executor_);
    const std::int64_t start_ns = t.executor_.clock().now_ns();
    for (std::uint64_t i = 0; i < 10; ++i) {
      calls.spawn([](RpcClient& client, std::uint64_t i) -> Task<> {
        auto reply =
            co_await call_echo(client, std::string(1'000'000, 'd'), i, {.timeout_ns = 100 * kMillisecond_ns});
        EXPECT_FALSE(reply);
        if (!reply) EXPECT_EQ(reply.error().code, Errc::kTimeout);
      }(client, i));
    }
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    EXPECT_LT(t.executor_.clock().now_ns() - start_ns, kSecond_ns);
  }(*this, client));
}

TEST_F(SocketTest, ConnectingToAHostThatDoesNotAnswerEndsInTime) {
  // A full backlog: the kernel drops further connects of TCP, as a host that is gone would.
  UniqueFd full(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(full.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(full.get(), 0), 0);
  ASSERT_EQ(::getsockname(full.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  std::vector<UniqueFd> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    (void)::connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), length);
  }
  RpcClient client(executor_, *transport_, "127.0.0.1:" + std::to_string(ntohs(address.sin_port)), 1);
  run([](SocketTest& t, RpcClient& client) -> Task<> {
    Scope calls(t.executor_);
    const std::int64_t start_ns = t.executor_.clock().now_ns();
    for (std::uint64_t i = 0; i < 20; ++i) {
      calls.spawn([](RpcClient& client, std::uint64_t i) -> Task<> {
        EXPECT_FALSE(co_await call_echo(client, "x", i, {.timeout_ns = 300 * kMillisecond_ns}));
      }(client, i));
    }
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
    EXPECT_LT(t.executor_.clock().now_ns() - start_ns, kSecond_ns);
  }(*this, client));
}

// One connection that always has requests ready must not keep the others from their turn.
TEST_F(SocketTest, AFloodOnOneConnectionLeavesTurnsToOthers) {
  RpcServer server(executor_);
  service_.add_to(server);
  const std::string path = directory_ + "/socket";
  ASSERT_TRUE(server.listen(*transport_, path));
  RpcClient flooding(executor_, *transport_, path, 1);
  RpcClient other(executor_, *transport_, path, 2);
  run([](SocketTest& t, RpcClient& flooding, RpcClient& other) -> Task<> {
    Scope calls(t.executor_);
    std::size_t left = 20'000;
    for (int i = 0; i < 400; ++i) {
      calls.spawn([](RpcClient& client, std::size_t& left) -> Task<> {
        while (left > 0) {
          --left;
          EXPECT_TRUE(co_await call_echo(client, "flood", 1, {}));
        }
      }(flooding, left));
    }
    EXPECT_TRUE(co_await call_echo(other, "other", 2, {}));
    EXPECT_GT(left, 0u);
    EXPECT_TRUE(co_await calls.join(kTestLimit_ns));
  }(*this, flooding, other));
}

}  // namespace
}  // namespace gradfs
