// How a client finds the servers: the master from GRADFS_MASTER, a worker from the address that the master
// names.
#pragma once

#include <cstdint>
#include <string>

#include "fs/net/rpc.h"

namespace gradfs {

inline constexpr const char* kDefaultMaster = "127.0.0.1:7400";
inline constexpr std::int64_t kConnectTimeout_ns = 3 * kSecond_ns;

// "HOST:PORT" as "ADDR:PORT", which transports take: names are looked up (this may block). kInvalid, with a
// line that says how to write it, for anything else.
Result<std::string> resolve_address(const std::string& text);

// GRADFS_MASTER, or kDefaultMaster where it is not set or empty; resolved.
Result<std::string> master_from_environment();

// kUnavailable: "no gradfs master answers at HOST:PORT: start one with ...".
Error no_master_error(const std::string& address);

// Says Hello by TCP and goes on over the master's Unix socket where it is on this host. Any failure to reach
// it is no_master_error().
Task<Result<wire::HelloResponse>> connect_master(RpcClient& client, std::string address, std::string program,
                                                 std::int64_t timeout_ns);

// The worker's Unix socket when it is on this host, else its ADDR:PORT; kUnavailable where there is neither.
Result<std::string> worker_endpoint(const wire::WorkerAddress& worker);
// Images can be passed: the worker is on this host.
bool is_local(const wire::WorkerAddress& worker);

}  // namespace gradfs
