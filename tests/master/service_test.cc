// The master behind a socket: its executor on a thread, clients on another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <thread>

#include "fs/master/master_service.h"

namespace gradfs {
namespace {

using ::testing::ElementsAre;

template <class T>
Errc code_of(const Result<T>& result) {
  return result ? Errc::kOk : result.error().code;
}

// One life of a master over a store that outlives it.
class RunningMaster {
 public:
  RunningMaster(Store& store, const std::string& socket, std::int64_t lease_ns) {
    names_ = Namespace::open(store).value();
    journal_ =
        Journal::start(store, *names_, {.cluster = "test", .uid = 0, .gid = 0, .time_ns = real_wall_ns()})
            .value();
    transport_ = make_socket_transport(executor_);
    MasterOptions options;
    options.unix_socket = socket;
    options.session_lease_ns = lease_ns;
    options.failed = [this](const Error&) { failed = true; };
    service_ =
        std::make_unique<MasterService>(executor_, executor_.clock(), store, *names_, *journal_, options);
    server_ = std::make_unique<RpcServer>(executor_);
    service_->add_handlers(*server_);
    EXPECT_TRUE(service_->start());
    ::unlink(socket.c_str());
    EXPECT_TRUE(server_->listen(*transport_, socket));
    thread_ = std::thread([this] { executor_.run(); });
  }
  ~RunningMaster() {
    executor_.post([this] { scope_.spawn(end()); });
    thread_.join();
  }

  std::atomic<bool> failed = false;

 private:
  Task<> end() {
    service_->close();
    co_await server_->shutdown(2 * kSecond_ns);
    co_await service_->stop();
    executor_.stop();
  }

  std::unique_ptr<Namespace> names_;
  std::unique_ptr<Journal> journal_;
  Executor executor_;
  Scope scope_{executor_};
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<MasterService> service_;
  std::unique_ptr<RpcServer> server_;
  std::thread thread_;
};

// A client whose calls block.
class Client {
 public:
  Client(const std::string& socket, std::uint64_t id) : rpc_(executor_, *transport_, socket, id) {}
  ~Client() {
    rpc_.close();
    executor_.poll();
  }

  template <class Method>
  Result<typename Method::Response> call(const typename Method::Request& request = {},
                                         std::int64_t timeout_ns = 10 * kSecond_ns) {
    std::optional<Result<typename Method::Response>> answer;
    scope_.spawn(run<Method>(request, timeout_ns, &answer));
    while (!answer) {
      executor_.poll();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return std::move(*answer);
  }

 private:
  template <class Method>
  Task<> run(typename Method::Request request, std::int64_t timeout_ns,
             std::optional<Result<typename Method::Response>>* answer) {
    CallOptions options;
    options.timeout_ns = timeout_ns;
    auto result = co_await rpc_.call<Method>(std::move(request), std::move(options));
    answer->emplace(std::move(result));
  }

  Executor executor_;
  Scope scope_{executor_};
  std::unique_ptr<Transport> transport_ = make_socket_transport(executor_);
  RpcClient rpc_;
};

class MasterTest : public ::testing::Test {
 protected:
  MasterTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "gradfs-master-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    socket_ = directory_ + "/master.sock";
    restart();
    client_ = std::make_unique<Client>(socket_, 1);
  }
  ~MasterTest() override {
    client_.reset();
    master_.reset();
    std::filesystem::remove_all(directory_);
  }

  void restart(std::int64_t lease_ns = 10 * kSecond_ns) {
    master_.reset();
    master_ = std::make_unique<RunningMaster>(store_, socket_, lease_ns);
  }
  template <class Method>
  Result<typename Method::Response> call(const typename Method::Request& request = {}) {
    return client_->call<Method>(request);
  }
  wire::RegisterWorkerResponse register_worker(std::uint64_t worker = 0) {
    wire::RegisterWorkerRequest request;
    request.set_worker(worker);
    request.set_capacity_bytes(1000);
    request.mutable_address()->set_unix_socket("/worker.sock");
    return call<rpc::RegisterWorker>(request).value();
  }
  static wire::CreateRequest create_request(const std::string& name) {
    wire::CreateRequest request;
    request.set_parent(1);
    request.set_name(name);
    request.set_type(wire::REGULAR);
    request.set_mode(0644);
    request.set_exclusive(true);
    return request;
  }
  Result<wire::WorkerPollResponse> poll(const wire::RegisterWorkerResponse& worker, std::uint32_t wait_ms,
                                        std::vector<std::uint64_t> dropped = {}) {
    wire::WorkerPollRequest request;
    request.set_worker(worker.worker());
    request.set_incarnation(worker.incarnation());
    request.set_used_bytes(100);
    request.set_wait_ms(wait_ms);
    for (const auto inode : dropped) request.add_dropped(inode);
    return call<rpc::WorkerPoll>(request);
  }

  MemoryStore store_;
  std::string directory_;
  std::string socket_;
  std::unique_ptr<RunningMaster> master_;
  std::unique_ptr<Client> client_;
};

TEST_F(MasterTest, SaysHello) {
  const auto hello = call<rpc::Hello>().value();
  EXPECT_EQ(hello.epoch(), 1U);
  EXPECT_EQ(hello.cluster(), "test");
  EXPECT_EQ(hello.unix_socket(), socket_);
  restart();
  EXPECT_EQ(call<rpc::Hello>().value().epoch(), 2U);
}

TEST_F(MasterTest, FilesHaveAHome) {
  EXPECT_EQ(code_of(call<rpc::Create>(create_request("early"))), Errc::kUnavailable);
  const auto worker = register_worker();
  const auto made = call<rpc::Create>(create_request("f")).value();
  EXPECT_EQ(made.attr().worker(), worker.worker());
  EXPECT_EQ(made.home().unix_socket(), "/worker.sock");
  wire::OpenRequest open;
  open.set_inode(made.attr().inode());
  EXPECT_EQ(call<rpc::Open>(open).value().home().worker(), worker.worker());
  ASSERT_TRUE(poll(worker, 0));
  const auto room = call<rpc::StatFs>().value();
  EXPECT_EQ(room.total_bytes(), 1000U);
  EXPECT_EQ(room.free_bytes(), 900U);
  EXPECT_EQ(room.inodes(), 2U);
}

TEST_F(MasterTest, AnImageIsDroppedOnlyWhenItsDeleteIsOnDisk) {
  const auto worker = register_worker();
  const auto inode = call<rpc::Create>(create_request("f")).value().attr().inode();
  wire::RemoveRequest remove;
  remove.set_parent(1);
  remove.set_name("f");
  ASSERT_TRUE(call<rpc::Unlink>(remove));
  EXPECT_THAT(poll(worker, 3000).value().drop_images(), ElementsAre(inode));
  store_.lose_unsynced();
  EXPECT_FALSE(store_.get(std::string("D\0\0\0\0\0\0\0\1f", 10)).value());
  // Told once; not again before the worker had time for it; and after its word never.
  EXPECT_EQ(poll(worker, 0).value().drop_images_size(), 0);
  EXPECT_EQ(poll(worker, 0, {inode}).value().drop_images_size(), 0);
}

TEST_F(MasterTest, SyncPutsEverythingOnDisk) {
  register_worker();
  ASSERT_TRUE(call<rpc::Create>(create_request("f")));
  ASSERT_TRUE(call<rpc::Sync>());
  store_.lose_unsynced();
  wire::LookupRequest lookup;
  lookup.set_parent(1);
  lookup.set_name("f");
  EXPECT_TRUE(call<rpc::Lookup>(lookup));
}

TEST_F(MasterTest, ChangesAreOnDiskSoonWithoutSync) {
  register_worker();
  ASSERT_TRUE(call<rpc::Create>(create_request("f")));
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  store_.lose_unsynced();
  wire::LookupRequest lookup;
  lookup.set_parent(1);
  lookup.set_name("f");
  EXPECT_TRUE(call<rpc::Lookup>(lookup));
}

TEST_F(MasterTest, AFailedSyncEndsTheMaster) {
  register_worker();
  ASSERT_TRUE(call<rpc::Sync>());
  store_.fail_next(1);
  EXPECT_EQ(code_of(call<rpc::Create>(create_request("f"))), Errc::kIo);
  EXPECT_TRUE(master_->failed);
  EXPECT_EQ(code_of(call<rpc::Create>(create_request("g"))), Errc::kIo);
}

TEST_F(MasterTest, AnotherProcessOfAWorkerTakesItsPlace) {
  const auto first = register_worker();
  const auto second = register_worker(first.worker());
  EXPECT_EQ(second.worker(), first.worker());
  EXPECT_EQ(code_of(poll(first, 0)), Errc::kStaleEpoch);
  EXPECT_TRUE(poll(second, 0));
  restart();
  EXPECT_EQ(code_of(poll(second, 0)), Errc::kStaleEpoch);
  EXPECT_TRUE(poll(register_worker(first.worker()), 0));
}

TEST_F(MasterTest, AMountThatStopsRenewingIsLost) {
  const auto worker = register_worker();
  restart(kSecond_ns);
  const auto again = register_worker(worker.worker());
  wire::OpenSessionRequest open;
  open.set_mount_point("/mnt");
  const auto opened = call<rpc::OpenSession>(open).value();
  EXPECT_EQ(opened.lease_ms(), 1000U);
  auto request = create_request("f");
  request.set_session(opened.session());
  request.set_open_for_write(true);
  const auto inode = call<rpc::Create>(request).value().attr().inode();
  wire::SessionRequest session;
  session.set_session(opened.session());
  for (int i = 0; i < 8; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    ASSERT_TRUE(call<rpc::KeepAlive>(session));
  }
  const auto status = call<rpc::ClusterStatus>().value();
  ASSERT_EQ(status.sessions_size(), 1);
  EXPECT_TRUE(status.sessions(0).alive());
  EXPECT_EQ(status.sessions(0).write_leases(), 1U);
  EXPECT_EQ(status.sessions(0).mount_point(), "/mnt");
  EXPECT_THAT(poll(again, 4000).value().commit_inodes(), ElementsAre(inode));
  EXPECT_EQ(code_of(call<rpc::KeepAlive>(session)), Errc::kStaleEpoch);
}

TEST_F(MasterTest, APushWaitsForTheWorkerAfterARestart) {
  const auto worker = register_worker();
  wire::CreateRequest directory = create_request("m");
  directory.set_type(wire::DIRECTORY);
  const auto m = call<rpc::Create>(directory).value().attr().inode();
  auto file = create_request("model.safetensors");
  file.set_parent(m);
  ASSERT_TRUE(call<rpc::Create>(file));
  wire::CommitBindRequest bind;
  bind.set_directory(m);
  bind.set_worker(worker.worker());
  const auto binding = call<rpc::CommitBind>(bind).value().binding();
  restart();
  wire::CommitPushRequest push;
  push.set_binding(binding.binding());
  push.mutable_push()->set_kind(wire::CONFIG_EDIT);
  push.mutable_push()->mutable_identity()->set_ordinal(1);
  push.set_to_disk(true);
  std::thread later([&] {
    Client other(socket_, 2);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    wire::RegisterWorkerRequest request;
    request.set_worker(worker.worker());
    auto* applied = request.add_applied();
    applied->set_binding(binding.binding());
    applied->set_applied(41);
    EXPECT_TRUE(other.call<rpc::RegisterWorker>(request));
  });
  EXPECT_EQ(call<rpc::CommitPush>(push).value().sequence(), 42U);
  later.join();
  const auto list = call<rpc::ListBindings>().value();
  ASSERT_EQ(list.bindings_size(), 1);
  EXPECT_EQ(list.bindings(0).path(), "/m");
  EXPECT_EQ(list.bindings(0).next_sequence(), 43U);
}

}  // namespace
}  // namespace gradfs
