#include "fs/net/master_link.h"

#include <unistd.h>

#include "fs/base/host.h"

namespace gradfs {

Task<Result<wire::HelloResponse>> greet_master(RpcClient& client, std::string program,
                                               std::int64_t timeout_ns) {
  wire::HelloRequest request;
  request.set_program(program);
  request.set_version(GRADFS_VERSION);
  const CallOptions options{.timeout_ns = timeout_ns};
  auto hello = co_await client.call<rpc::Hello>(std::move(request), options);
  if (!hello) co_return hello;
  const std::string& socket = hello.value().unix_socket();
  if (hello.value().host() == host_id() && !socket.empty() && ::access(socket.c_str(), W_OK) == 0) {
    client.move_to(socket);
  }
  co_return hello;
}

}  // namespace gradfs
