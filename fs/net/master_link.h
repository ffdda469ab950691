// The way from any process to the master: TCP first, then its Unix socket when it is on this host.
#pragma once

#include <string>

#include "fs/net/rpc.h"

namespace gradfs {

// Says Hello over `client` and moves it to the master's Unix socket where that can be reached. kUnavailable
// or kTimeout when no master answers within timeout_ns.
Task<Result<wire::HelloResponse>> greet_master(RpcClient& client, std::string program,
                                               std::int64_t timeout_ns);

}  // namespace gradfs
