#include "client/lib/endpoints.h"

#include <netdb.h>
#include <sys/socket.h>

#include <cstdlib>
#include <memory>

#include "fs/base/host.h"
#include "fs/net/master_link.h"

namespace gradfs {
namespace {

bool is_port(const std::string& text) {
  return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string::npos &&
         std::stoul(text) > 0 && std::stoul(text) <= 65535;
}

}  // namespace

Result<std::string> resolve_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::string host = colon == std::string::npos ? "" : text.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  if (host.empty() || !is_port(port)) {
    return Error(Errc::kInvalid, "'" + text + "' is no address: write HOST:PORT, such as " + kDefaultMaster);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failure = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (failure != 0) return Error(Errc::kInvalid, "cannot look up '" + host + "': " + ::gai_strerror(failure));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
  const addrinfo* best =
      list.get();  // servers listen on 127.0.0.1 by default: the IPv4 address if there is one
  for (const addrinfo* entry = list.get(); entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family == AF_INET) {
      best = entry;
      break;
    }
  }
  char numeric[NI_MAXHOST];
  if (::getnameinfo(best->ai_addr, best->ai_addrlen, numeric, sizeof numeric, nullptr, 0, NI_NUMERICHOST) !=
      0) {
    return Error(Errc::kInvalid, "cannot look up '" + host + "'");
  }
  const std::string address = numeric;
  return (best->ai_family == AF_INET6 ? "[" + address + "]" : address) + ":" + port;
}

Result<std::string> master_from_environment() {
  const char* text = std::getenv("GRADFS_MASTER");
  if (text == nullptr || *text == '\0') return std::string(kDefaultMaster);
  auto address = resolve_address(text);
  if (!address) return Error(Errc::kInvalid, "GRADFS_MASTER: " + address.error().detail);
  return address;
}

Error no_master_error(const std::string& address) {
  return {Errc::kUnavailable, "no gradfs master answers at " + address +
                                  ": start one with 'fsctl cluster up' or set GRADFS_MASTER"};
}

Task<Result<wire::HelloResponse>> connect_master(RpcClient& client, std::string address, std::string program,
                                                 std::int64_t timeout_ns) {
  auto hello = co_await greet_master(client, std::move(program), timeout_ns);
  if (!hello) {
    const Errc code = hello.error().code;
    if (code == Errc::kUnavailable || code == Errc::kTimeout) co_return no_master_error(address);
    co_return Error(code, address + ": " + hello.error().message());
  }
  co_return hello;
}

bool is_local(const wire::WorkerAddress& worker) {
  return !host_id().empty() && worker.host() == host_id() && !worker.unix_socket().empty();
}

Result<std::string> worker_endpoint(const wire::WorkerAddress& worker) {
  if (is_local(worker)) return worker.unix_socket();
  if (!worker.address().empty()) return worker.address();
  return Error(Errc::kUnavailable,
               "the worker is on another host and listens only there: run this command on that host");
}

}  // namespace gradfs
