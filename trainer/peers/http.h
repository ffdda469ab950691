// The HTTP of the parameter server, by Boost.Beast: headers through Beast, bodies straight between the socket
// and the memory they belong to.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "fs/base/result.h"
#include "trainer/peers/tcp.h"

namespace gradfs::trainer {

using HttpFields = std::map<std::string, std::string>;

struct HttpRequest {
  std::string method;            // "GET"
  std::string target;            // "/model"
  HttpFields fields;             // those whose names begin with Gradfs-
  std::uint64_t body_bytes = 0;  // of what is received; send() sets its own
};

struct HttpResponse {
  unsigned status = 200;
  HttpFields fields;
  std::uint64_t body_bytes = 0;
};

// One side of a persistent connection; one thread. After a head has been received its body has to be read
// before anything else is. kUnavailable: the other side is gone; kInvalid: what it says is not HTTP, or its
// head is longer than 8 KiB.
class HttpConnection {
 public:
  explicit HttpConnection(TcpSocket socket);
  HttpConnection(HttpConnection&&) noexcept;
  ~HttpConnection();

  [[nodiscard]] Result<void> send(const HttpRequest& request, std::span<const std::byte> body);
  [[nodiscard]] Result<void> send(const HttpResponse& response, std::span<const std::byte> body);
  [[nodiscard]] Result<HttpRequest> receive_request();
  [[nodiscard]] Result<HttpResponse> receive_response();
  // The body of what was received last; out is as long as its head says.
  [[nodiscard]] Result<void> receive_body(std::span<std::byte> out);
  // Ends what any thread does with it.
  void shut_down() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gradfs::trainer
