#include "trainer/peers/http.h"

#include <algorithm>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstring>
#include <sstream>
#include <utility>

namespace gradfs::trainer {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr unsigned kVersion = 11;
constexpr std::uint32_t kHeadMax = 8 << 10;
constexpr const char* kOwnFields = "Gradfs-";

// The head of a message without a body, as text.
template <bool kIsRequest>
std::string head_of(http::header<kIsRequest, http::fields> header, const HttpFields& fields,
                    std::uint64_t body_bytes) {
  for (const auto& [name, value] : fields) header.set(name, value);
  header.set(http::field::content_length, std::to_string(body_bytes));
  std::ostringstream out;
  out << header;
  return out.str();
}

HttpFields own_fields(const http::fields& fields) {
  HttpFields out;
  for (const auto& field : fields) {
    if (field.name_string().starts_with(kOwnFields)) {
      out.emplace(std::string(field.name_string()), std::string(field.value()));
    }
  }
  return out;
}

}  // namespace

struct HttpConnection::State {
  TcpSocket socket;
  beast::flat_buffer buffer;  // received, and not yet used

  // Receives a head into parser.
  template <class Parser>
  Result<void> receive_head(Parser& parser) {
    parser.header_limit(kHeadMax);
    parser.body_limit(boost::none);
    while (!parser.is_header_done()) {
      boost::system::error_code error;
      if (buffer.size() > 0) {
        buffer.consume(parser.put(buffer.data(), error));
        if (error && error != http::error::need_more) {
          return Error(Errc::kInvalid, "not the HTTP of a parameter server: " + error.message());
        }
        if (parser.is_header_done()) break;
      }
      const auto room = buffer.prepare(kHeadMax);
      GRADFS_TRY(const std::size_t size,
                 socket.read_some(std::span(static_cast<std::byte*>(room.data()), room.size())));
      buffer.commit(size);
    }
    return ok();
  }

  template <class Head>
  Result<void> send(const Head& head, std::span<const std::byte> body) {
    const auto text = std::as_bytes(std::span(head));
    return body.empty() ? socket.write_all(text) : socket.write_all(text, body);
  }
};

HttpConnection::HttpConnection(TcpSocket socket) : state_(std::make_unique<State>()) {
  state_->socket = std::move(socket);
}
HttpConnection::HttpConnection(HttpConnection&&) noexcept = default;
HttpConnection::~HttpConnection() = default;

void HttpConnection::shut_down() const noexcept { state_->socket.shut_down(); }

Result<void> HttpConnection::send(const HttpRequest& request, std::span<const std::byte> body) {
  http::header<true, http::fields> header;
  header.version(kVersion);
  header.method_string(request.method);
  header.target(request.target);
  header.set(http::field::host, "127.0.0.1");
  return state_->send(head_of(std::move(header), request.fields, body.size()), body);
}

Result<void> HttpConnection::send(const HttpResponse& response, std::span<const std::byte> body) {
  http::header<false, http::fields> header;
  header.version(kVersion);
  header.result(response.status);
  return state_->send(head_of(std::move(header), response.fields, body.size()), body);
}

Result<HttpRequest> HttpConnection::receive_request() {
  http::request_parser<http::buffer_body> parser;
  GRADFS_TRYV(state_->receive_head(parser));
  const auto& message = parser.get();
  return HttpRequest{.method = std::string(message.method_string()),
                     .target = std::string(message.target()),
                     .fields = own_fields(message),
                     .body_bytes = parser.content_length().value_or(0)};
}

Result<HttpResponse> HttpConnection::receive_response() {
  http::response_parser<http::buffer_body> parser;
  GRADFS_TRYV(state_->receive_head(parser));
  const auto& message = parser.get();
  return HttpResponse{.status = message.result_int(),
                      .fields = own_fields(message),
                      .body_bytes = parser.content_length().value_or(0)};
}

Result<void> HttpConnection::receive_body(std::span<std::byte> out) {
  const std::size_t ready = std::min(out.size(), state_->buffer.size());
  if (ready > 0) std::memcpy(out.data(), state_->buffer.data().data(), ready);
  state_->buffer.consume(ready);
  return state_->socket.read_all(out.subspan(ready));
}

}  // namespace gradfs::trainer
