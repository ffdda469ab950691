// The parameter server's HTTP: what is sent arrives, in one connection, and what is no HTTP ends it.
#include "trainer/peers/http.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace gradfs::trainer {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

struct Pair {
  TcpSocket client;
  TcpSocket server;
};

Pair connect() {
  TcpListener listener = std::move(TcpListener::make().value());
  Pair pair;
  pair.client = std::move(TcpSocket::connect(listener.port()).value());
  pair.server = std::move(listener.accept(5000).value());
  return pair;
}

TEST(Http, BodiesOfAnyLengthFollowOneAnother) {
  Pair pair = connect();
  HttpConnection client(std::move(pair.client));
  HttpConnection server(std::move(pair.server));
  for (const std::size_t size : {0u, 1u, 5000u, 9'000'000u}) {
    const std::string body(size, static_cast<char>('a' + size % 20));
    std::jthread sender([&] {
      ASSERT_TRUE(client.send(HttpRequest{"POST", "/gradient", {{"Gradfs-Step", "7"}}, 0}, bytes_of(body)));
    });
    const HttpRequest request = server.receive_request().value();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.target, "/gradient");
    EXPECT_EQ(request.fields, (HttpFields{{"Gradfs-Step", "7"}}));
    ASSERT_EQ(request.body_bytes, size);
    std::string received(size, '\0');
    ASSERT_TRUE(server.receive_body(std::as_writable_bytes(std::span(received))));
    EXPECT_EQ(received, body);
    sender.join();
    ASSERT_TRUE(server.send(HttpResponse{422, {}, 0}, {}));
    const HttpResponse response = client.receive_response().value();
    EXPECT_EQ(response.status, 422u);
    EXPECT_EQ(response.body_bytes, 0u);
  }
}

TEST(Http, TwoMessagesInOnePacketAreTwo) {
  Pair pair = connect();
  HttpConnection server(std::move(pair.server));
  ASSERT_TRUE(pair.client.write_all(
      bytes_of("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n")));
  EXPECT_EQ(server.receive_request().value().target, "/a");
  std::string body(3, '\0');
  ASSERT_TRUE(server.receive_body(std::as_writable_bytes(std::span(body))));
  EXPECT_EQ(body, "abc");
  const HttpRequest second = server.receive_request().value();
  EXPECT_EQ(second.target, "/b");
  EXPECT_EQ(second.method, "GET");
}

TEST(Http, WhatIsNotHttpIsRefused) {
  for (const std::string& text : {std::string("hello\r\n\r\n"), std::string(20'000, 'x')}) {
    Pair pair = connect();
    HttpConnection server(std::move(pair.server));
    ASSERT_TRUE(pair.client.write_all(bytes_of(text)));
    const auto request = server.receive_request();
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().code, Errc::kInvalid) << request.error().message();
  }
}

TEST(Http, AClosedConnectionIsUnavailable) {
  Pair pair = connect();
  HttpConnection server(std::move(pair.server));
  {
    const TcpSocket closed = std::move(pair.client);
  }
  const auto request = server.receive_request();
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().code, Errc::kUnavailable);
}

}  // namespace
}  // namespace gradfs::trainer
