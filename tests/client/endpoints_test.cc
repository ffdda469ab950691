#include "client/lib/endpoints.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "client/lib/filesystem.h"
#include "client/lib/run_blocking.h"
#include "fs/base/host.h"

namespace gradfs {
namespace {

TEST(Endpoints, AddressesAreResolved) {
  EXPECT_EQ(resolve_address("127.0.0.1:7400").value(), "127.0.0.1:7400");
  EXPECT_EQ(resolve_address("localhost:7401").value(), "127.0.0.1:7401");
  EXPECT_EQ(resolve_address("[::1]:7400").value(), "[::1]:7400");
}

TEST(Endpoints, WhatIsNoAddressIsRefusedWithAHint) {
  for (const char* text : {"", "localhost", ":7400", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536",
                           "127.0.0.1:x", "127.0.0.1:123456789"}) {
    const auto result = resolve_address(text);
    ASSERT_FALSE(result.has_value()) << text;
    EXPECT_EQ(result.error().code, Errc::kInvalid);
    EXPECT_NE(result.error().detail.find("HOST:PORT"), std::string::npos) << text;
  }
}

TEST(Endpoints, MasterComesFromTheEnvironment) {
  ::unsetenv("GRADFS_MASTER");
  EXPECT_EQ(master_from_environment().value(), kDefaultMaster);
  ::setenv("GRADFS_MASTER", "", 1);
  EXPECT_EQ(master_from_environment().value(), kDefaultMaster);
  ::setenv("GRADFS_MASTER", "localhost:9", 1);
  EXPECT_EQ(master_from_environment().value(), "127.0.0.1:9");
  ::setenv("GRADFS_MASTER", "nonsense", 1);
  ASSERT_FALSE(master_from_environment().has_value());
  EXPECT_NE(master_from_environment().error().detail.find("GRADFS_MASTER"), std::string::npos);
  ::unsetenv("GRADFS_MASTER");
}

TEST(Endpoints, AWorkerOnThisHostIsReachedByItsUnixSocket) {
  wire::WorkerAddress address;
  address.set_host(host_id());
  address.set_unix_socket("/run/worker.sock");
  address.set_address("10.0.0.1:7500");
  EXPECT_TRUE(is_local(address));
  EXPECT_EQ(worker_endpoint(address).value(), "/run/worker.sock");
  address.set_host("another");
  EXPECT_FALSE(is_local(address));
  EXPECT_EQ(worker_endpoint(address).value(), "10.0.0.1:7500");
  address.clear_address();
  EXPECT_EQ(worker_endpoint(address).error().code, Errc::kUnavailable);
}

TEST(Endpoints, NoMasterIsOneLineThatSaysWhatToDo) {
  Executor executor;
  const auto transport = make_socket_transport(executor);
  Filesystem filesystem(executor, *transport, "127.0.0.1:1", "test");
  const auto hello = run_blocking(executor, filesystem.connect(200 * kMillisecond_ns));
  ASSERT_FALSE(hello.has_value());
  EXPECT_EQ(
      hello.error().detail,
      "no gradfs master answers at 127.0.0.1:1: start one with 'fsctl cluster up' or set GRADFS_MASTER");
}

}  // namespace
}  // namespace gradfs
