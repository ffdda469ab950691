#include "fs/master/master_service.h"

#include <algorithm>

#include "fs/base/log.h"

namespace gradfs {
namespace {

constexpr std::int64_t kExpiryTick_ns = 500 * kMillisecond_ns;
constexpr std::int64_t kStalled_ns =
    2 * kSecond_ns;  // a tick this late: we were not running, so nobody could renew
constexpr std::int64_t kPollMax_ms = 5000;
constexpr std::int64_t kRegistrationWait_ns = 10 * kSecond_ns;
constexpr std::int64_t kStopTimeout_ns = 10 * kSecond_ns;

}  // namespace

MasterService::MasterService(Executor& executor, Clock& clock, Store& store, Namespace& names,
                             Journal& journal, MasterOptions options)
    : executor_(executor),
      clock_(clock),
      names_(names),
      journal_(journal),
      options_(std::move(options)),
      started_ns_(clock.wall_ns()),
      gate_(executor, store, options_.sync_threads, [this](const Error& error) { fail(error); }),
      workers_(clock),
      commands_changed_(executor),
      workers_changed_(executor),
      closing_(executor),
      scope_(executor) {}

Result<void> MasterService::start() {
  GRADFS_TRY(auto workers, names_.workers());
  workers_.load(workers);
  GRADFS_TRY(auto sessions, names_.sessions());
  for (const auto& session : sessions) touch(session.session());
  gate_.changed(names_.applied_index());
  gate_.on_synced([this] { commands_changed_.notify_all(); });
  scope_.spawn(gate_.run());
  scope_.spawn(expire_sessions());
  return ok();
}

void MasterService::fail(const Error& error) {
  if (failed_) return;
  failed_ = error;
  spdlog::critical("the metadata cannot be written: {}", error.message());
  if (options_.failed) options_.failed(error);
}

void MasterService::close() {
  stopping_ = true;
  scope_.close();
  closing_.notify_all();
  commands_changed_.notify_all();
  workers_changed_.notify_all();
}

Task<> MasterService::stop() {
  close();
  gate_.stop();
  co_await scope_.join(kStopTimeout_ns);
}

Result<void> MasterService::check_usable(const CallContext& context) const {
  if (failed_) return Error(Errc::kIo, "the master has failed");
  if (context.peer_epoch > journal_.epoch())
    return Error(Errc::kStaleEpoch, "this master is of an earlier epoch");
  return ok();
}

Result<std::string> MasterService::commit(Mutation mutation) {
  mutation.time_ns = clock_.wall_ns();
  mutation.worker = workers_.pick();
  auto answer = journal_.commit(std::move(mutation));
  if (names_.failed()) fail(*names_.failed());
  gate_.changed(names_.applied_index());
  return answer;
}

template <class Method>
Result<typename Method::Response> MasterService::mutate(const typename Method::Request& request,
                                                        const CallContext& context) {
  GRADFS_TRYV(check_usable(context));
  Mutation mutation;
  mutation.method = Method::kNumber;
  mutation.request = request.SerializeAsString();
  mutation.client = context.client;
  mutation.request_id = context.request_id;
  GRADFS_TRY(auto answer, commit(std::move(mutation)));
  typename Method::Response response;
  if (!response.ParseFromString(answer)) return Error(Errc::kCorrupt, "stored answer");
  return response;
}

template <class Method>
Task<Result<typename Method::Response>> MasterService::answer_mutation(typename Method::Request request,
                                                                       const CallContext& context) {
  co_return mutate<Method>(request, context);
}

template <class Method>
Task<Result<typename Method::Response>> MasterService::answer_read(Read<Method> read,
                                                                   typename Method::Request request,
                                                                   const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  co_return (names_.*read)(request);
}

template <class Method>
void MasterService::serve_mutation(RpcServer& server) {
  server.handle<Method>([this](typename Method::Request request, CallContext& context) {
    return answer_mutation<Method>(std::move(request), context);
  });
}

template <class Method>
void MasterService::serve_read(RpcServer& server, Read<Method> read) {
  server.handle<Method>([this, read](typename Method::Request request, CallContext& context) {
    return answer_read<Method>(read, std::move(request), context);
  });
}

void MasterService::add_handlers(RpcServer& server) {
  server.set_epoch(journal_.epoch());
  server.handle<rpc::Hello>(
      [this](const wire::HelloRequest&, CallContext& context) { return hello(context); });
  server.handle<rpc::OpenSession>([this](wire::OpenSessionRequest request, CallContext& context) {
    return open_session(std::move(request), context);
  });
  server.handle<rpc::KeepAlive>([this](wire::SessionRequest request, CallContext& context) {
    return keep_alive(std::move(request), context);
  });
  server.handle<rpc::CloseSession>([this](wire::SessionRequest request, CallContext& context) {
    return close_session(std::move(request), context);
  });
  server.handle<rpc::ClusterStatus>(
      [this](const wire::Empty&, CallContext& context) { return cluster_status(context); });
  add_namespace_handlers(server);
  add_worker_handlers(server);
}

void MasterService::add_namespace_handlers(RpcServer& server) {
  serve_read<rpc::Lookup>(server, &Namespace::lookup);
  serve_read<rpc::GetAttr>(server, &Namespace::get_attr);
  serve_read<rpc::ReadDir>(server, &Namespace::read_dir);
  serve_read<rpc::GetXattr>(server, &Namespace::get_xattr);
  serve_read<rpc::ListXattr>(server, &Namespace::list_xattr);
  serve_mutation<rpc::SetAttr>(server);
  serve_mutation<rpc::Unlink>(server);
  serve_mutation<rpc::Rmdir>(server);
  serve_mutation<rpc::Rename>(server);
  serve_mutation<rpc::SetXattr>(server);
  serve_mutation<rpc::RemoveXattr>(server);
  server.handle<rpc::Create>([this](wire::CreateRequest request, CallContext& context) {
    return create(std::move(request), context);
  });
  server.handle<rpc::Open>(
      [this](wire::OpenRequest request, CallContext& context) { return open(std::move(request), context); });
  server.handle<rpc::Close>([this](wire::CloseRequest request, CallContext& context) {
    return close_file(std::move(request), context);
  });
  server.handle<rpc::StatFs>([this](const wire::Empty&, CallContext& context) { return stat_fs(context); });
  server.handle<rpc::Sync>([this](const wire::Empty&, CallContext& context) { return sync(context); });
}

void MasterService::add_worker_handlers(RpcServer& server) {
  server.handle<rpc::RegisterWorker>([this](wire::RegisterWorkerRequest request, CallContext& context) {
    return register_worker(std::move(request), context);
  });
  server.handle<rpc::WorkerPoll>([this](wire::WorkerPollRequest request, CallContext& context) {
    return worker_poll(std::move(request), context);
  });
  server.handle<rpc::AllocateInode>([this](wire::AllocateInodeRequest request, CallContext& context) {
    return allocate_inode(std::move(request), context);
  });
  server.handle<rpc::CommitPush>([this](wire::CommitPushRequest request, CallContext& context) {
    return commit_push(std::move(request), context);
  });
  server.handle<rpc::ListBindings>(
      [this](const wire::Empty&, CallContext& context) { return list_bindings(context); });
  serve_mutation<rpc::CommitBind>(server);
  serve_mutation<rpc::RejectPush>(server);
  serve_mutation<rpc::Retire>(server);
  serve_read<rpc::PushOutcome>(server, &Namespace::push_outcome);
  serve_read<rpc::GetBinding>(server, &Namespace::get_binding);
}

void MasterService::touch(std::uint64_t session) {
  if (session != 0) sessions_[session] = clock_.now_ns() + options_.session_lease_ns;
}

void MasterService::add_home(wire::AttrResponse& response) const {
  const auto* address = workers_.address(WorkerId{response.attr().worker()});
  if (response.attr().worker() != 0 && address != nullptr) *response.mutable_home() = *address;
}

Task<Result<wire::HelloResponse>> MasterService::hello(const CallContext&) {
  wire::HelloResponse response;
  response.set_epoch(journal_.epoch());
  response.set_cluster(names_.header().cluster());
  response.set_host(options_.host);
  response.set_unix_socket(options_.unix_socket);
  co_return response;
}

Task<Result<wire::OpenSessionResponse>> MasterService::open_session(wire::OpenSessionRequest request,
                                                                    const CallContext& context) {
  GRADFS_CO_TRY(auto response, mutate<rpc::OpenSession>(request, context));
  touch(response.session());
  response.set_lease_ms(static_cast<std::uint32_t>(options_.session_lease_ns / kMillisecond_ns));
  co_return response;
}

Task<Result<wire::Empty>> MasterService::keep_alive(wire::SessionRequest request,
                                                    const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  if (!sessions_.contains(request.session())) co_return Error(Errc::kStaleEpoch, "the session has ended");
  touch(request.session());
  co_return wire::Empty();
}

Task<Result<wire::Empty>> MasterService::close_session(wire::SessionRequest request,
                                                       const CallContext& context) {
  GRADFS_CO_TRY(auto response, mutate<rpc::CloseSession>(request, context));
  sessions_.erase(request.session());
  commands_changed_.notify_all();
  co_return response;
}

// A mount that is killed or cut off does not renew: what it had open for writing is settled without it.
Task<> MasterService::expire_sessions() {
  std::int64_t last_ns = clock_.now_ns();
  while (!stopping_) {
    co_await closing_.wait(kExpiryTick_ns);
    const std::int64_t now_ns = clock_.now_ns();
    const std::int64_t late_ns = now_ns - last_ns - kExpiryTick_ns;
    last_ns = now_ns;
    if (late_ns > kStalled_ns) {
      for (auto& [session, end_ns] : sessions_) end_ns += late_ns;
    }
    std::vector<std::uint64_t> ended;
    for (const auto& [session, end_ns] : sessions_) {
      if (end_ns <= now_ns) ended.push_back(session);
    }
    for (const std::uint64_t session : ended) {
      if (stopping_ || failed_) co_return;
      spdlog::warn("session {:x}: its mount was lost", session);
      wire::SessionRequest request;
      request.set_session(session);
      Mutation mutation;
      mutation.method = rpc::CloseSession::kNumber;
      mutation.request = request.SerializeAsString();
      auto closed = commit(std::move(mutation));
      if (!closed) spdlog::error("session {:x}: {}", session, closed.error().message());
      sessions_.erase(session);
    }
    if (!ended.empty()) commands_changed_.notify_all();
  }
}

Task<Result<wire::AttrResponse>> MasterService::create(wire::CreateRequest request,
                                                       const CallContext& context) {
  if (sessions_.contains(request.session())) touch(request.session());
  GRADFS_CO_TRY(auto response, mutate<rpc::Create>(request, context));
  add_home(response);
  co_return response;
}

Task<Result<wire::AttrResponse>> MasterService::open(wire::OpenRequest request, const CallContext& context) {
  if (sessions_.contains(request.session())) touch(request.session());
  GRADFS_CO_TRYV(check_usable(context));
  auto response = request.write() && request.session() != 0 ? mutate<rpc::Open>(request, context)
                                                            : names_.open_for_read(request);
  if (response) add_home(response.value());
  co_return response;
}

Task<Result<wire::Empty>> MasterService::close_file(wire::CloseRequest request, const CallContext& context) {
  if (sessions_.contains(request.session())) touch(request.session());
  co_return mutate<rpc::Close>(request, context);
}

Task<Result<wire::StatFsResponse>> MasterService::stat_fs(const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  wire::StatFsResponse response;
  for (const auto& info : workers_.infos()) {
    response.set_total_bytes(response.total_bytes() + info.capacity_bytes());
    const std::uint64_t used = std::min(info.used_bytes(), info.capacity_bytes());
    response.set_free_bytes(response.free_bytes() + info.capacity_bytes() - used);
  }
  response.set_inodes(names_.header().inodes());
  co_return response;
}

Task<Result<wire::Empty>> MasterService::sync(const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  GRADFS_CO_TRYV(co_await gate_.wait());
  co_return wire::Empty();
}

Task<Result<wire::RegisterWorkerResponse>> MasterService::register_worker(wire::RegisterWorkerRequest request,
                                                                          const CallContext& context) {
  GRADFS_CO_TRY(auto response, mutate<rpc::RegisterWorker>(request, context));
  stored::Worker worker;
  *worker.mutable_address() = request.address();
  worker.mutable_address()->set_worker(response.worker());
  worker.set_capacity_bytes(request.capacity_bytes());
  worker.set_incarnation(response.incarnation());
  GRADFS_CO_TRYV(co_await gate_.wait());
  workers_.registered(worker);
  workers_changed_.notify_all();
  commands_changed_.notify_all();
  spdlog::info("worker {:x} registered from {}", response.worker(), request.address().unix_socket());
  co_return response;
}

Task<Result<wire::WorkerPollResponse>> MasterService::worker_poll(wire::WorkerPollRequest request,
                                                                  const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  const WorkerId worker{request.worker()};
  GRADFS_CO_TRYV(workers_.seen(worker, request.incarnation(), request.used_bytes()));
  if (request.dropped_size() > 0 || request.dropped_bindings_size() > 0) {
    GRADFS_CO_TRYV(mutate<rpc::WorkerPoll>(request, context));
  }
  const std::int64_t wait_ms = std::min<std::int64_t>(request.wait_ms(), kPollMax_ms);
  const std::int64_t deadline_ns = clock_.now_ns() + wait_ms * kMillisecond_ns;
  for (;;) {
    if (!workers_.is_current(worker, request.incarnation())) {
      co_return Error(Errc::kStaleEpoch, "another process of this worker has registered");
    }
    auto response = workers_.take_commands(names_, worker, gate_.synced());
    const bool empty = response.drop_images().empty() && response.drop_bindings().empty() &&
                       response.commit_inodes().empty();
    const std::int64_t left_ns = deadline_ns - clock_.now_ns();
    if (!empty || stopping_ || left_ns <= 0) co_return response;
    co_await commands_changed_.wait(left_ns);
  }
}

Task<Result<wire::AttrResponse>> MasterService::allocate_inode(wire::AllocateInodeRequest request,
                                                               const CallContext& context) {
  GRADFS_CO_TRY(auto response, mutate<rpc::AllocateInode>(request, context));
  add_home(response);
  co_return response;
}

// A master that has just started gives no number before the worker has said how far it has applied: the log
// may have lost the last ones with the power of the host.
Task<Result<wire::CommitPushResponse>> MasterService::commit_push(wire::CommitPushRequest request,
                                                                  const CallContext& context) {
  GRADFS_CO_TRY(WorkerId worker, names_.worker_of_binding(BindingId{request.binding()}));
  const std::int64_t deadline_ns = clock_.now_ns() + kRegistrationWait_ns;
  while (!workers_.is_current(worker)) {
    const std::int64_t left_ns = deadline_ns - clock_.now_ns();
    if (left_ns <= 0 || stopping_) co_return Error(Errc::kUnavailable, "the worker has not registered");
    co_await workers_changed_.wait(left_ns);
  }
  GRADFS_CO_TRY(auto response, mutate<rpc::CommitPush>(request, context));
  if (request.to_disk()) {
    GRADFS_CO_TRYV(co_await gate_.wait());
  }
  co_return response;
}

Task<Result<wire::ListBindingsResponse>> MasterService::list_bindings(const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  co_return names_.list_bindings();
}

Task<Result<wire::ClusterStatusResponse>> MasterService::cluster_status(const CallContext& context) {
  GRADFS_CO_TRYV(check_usable(context));
  wire::ClusterStatusResponse response;
  response.set_epoch(journal_.epoch());
  response.set_cluster(names_.header().cluster());
  response.set_inodes(names_.header().inodes());
  response.set_mutations(names_.applied_index());
  response.set_bindings(names_.header().bindings());
  response.set_started_ns(started_ns_);
  for (auto& info : workers_.infos()) *response.add_workers() = std::move(info);
  GRADFS_CO_TRY(auto sessions, names_.sessions());
  for (const auto& session : sessions) {
    wire::SessionInfo& info = *response.add_sessions();
    info.set_session(session.session());
    info.set_host(session.host());
    info.set_mount_point(session.mount_point());
    GRADFS_CO_TRY(auto leases, names_.write_leases(SessionId{session.session()}));
    info.set_write_leases(leases);
    const auto lease = sessions_.find(session.session());
    info.set_alive(lease != sessions_.end() && lease->second > clock_.now_ns());
  }
  co_return response;
}

}  // namespace gradfs
