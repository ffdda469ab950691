// MasterService: methods 1..99 over a Namespace. Knows no sockets, so that it runs unchanged in a simulation.
//
// An answer leaves when its entry is in the log: a killed master loses nothing. It is on disk within 100 ms,
// or when Sync answers. All on one executor's thread; the flush of the log has a thread of its own.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "fs/master/sync_gate.h"
#include "fs/master/worker_table.h"
#include "fs/meta/journal.h"
#include "fs/net/rpc.h"

namespace gradfs {

struct MasterOptions {
  std::string host;  // host id
  std::string unix_socket;
  unsigned sync_threads = 1;  // 0 in a simulation
  std::int64_t session_lease_ns = 10 * kSecond_ns;
  // The metadata cannot be trusted to reach the disk any more. Called once; nothing is served after it.
  std::function<void(const Error&)> failed;
};

class MasterService {
 public:
  // All must outlive the service. The journal has started its epoch, and the store is synced.
  MasterService(Executor& executor, Clock& clock, Store& store, Namespace& names, Journal& journal,
                MasterOptions options);

  // Loads what there is and starts the loops.
  Result<void> start();
  void add_handlers(RpcServer& server);
  // Ends long polls and takes no new work; then shut the server down; then stop() ends the loops and syncs.
  void close();
  Task<> stop();

 private:
  template <class Method>
  using Read = Result<typename Method::Response> (Namespace::*)(const typename Method::Request&);

  template <class Method>
  Result<typename Method::Response> mutate(const typename Method::Request& request,
                                           const CallContext& context);
  template <class Method>
  void serve_mutation(RpcServer& server);
  template <class Method>
  void serve_read(RpcServer& server, Read<Method> read);
  template <class Method>
  Task<Result<typename Method::Response>> answer_mutation(typename Method::Request request,
                                                          const CallContext& context);
  template <class Method>
  Task<Result<typename Method::Response>> answer_read(Read<Method> read, typename Method::Request request,
                                                      const CallContext& context);
  void add_namespace_handlers(RpcServer& server);
  void add_worker_handlers(RpcServer& server);
  Result<std::string> commit(Mutation mutation);
  Result<void> check_usable(const CallContext& context) const;
  void fail(const Error& error);
  void touch(std::uint64_t session);
  void add_home(wire::AttrResponse& response) const;

  Task<Result<wire::HelloResponse>> hello(const CallContext& context);
  Task<Result<wire::OpenSessionResponse>> open_session(wire::OpenSessionRequest request,
                                                       const CallContext& context);
  Task<Result<wire::Empty>> keep_alive(wire::SessionRequest request, const CallContext& context);
  Task<Result<wire::Empty>> close_session(wire::SessionRequest request, const CallContext& context);
  Task<Result<wire::AttrResponse>> create(wire::CreateRequest request, const CallContext& context);
  Task<Result<wire::AttrResponse>> open(wire::OpenRequest request, const CallContext& context);
  Task<Result<wire::Empty>> close_file(wire::CloseRequest request, const CallContext& context);
  Task<Result<wire::StatFsResponse>> stat_fs(const CallContext& context);
  Task<Result<wire::Empty>> sync(const CallContext& context);
  Task<Result<wire::RegisterWorkerResponse>> register_worker(wire::RegisterWorkerRequest request,
                                                             const CallContext& context);
  Task<Result<wire::WorkerPollResponse>> worker_poll(wire::WorkerPollRequest request,
                                                     const CallContext& context);
  Task<Result<wire::AttrResponse>> allocate_inode(wire::AllocateInodeRequest request,
                                                  const CallContext& context);
  Task<Result<wire::CommitPushResponse>> commit_push(wire::CommitPushRequest request,
                                                     const CallContext& context);
  Task<Result<wire::ListBindingsResponse>> list_bindings(const CallContext& context);
  Task<Result<wire::ClusterStatusResponse>> cluster_status(const CallContext& context);
  Task<> expire_sessions();

  Executor& executor_;
  Clock& clock_;
  Namespace& names_;
  Journal& journal_;
  const MasterOptions options_;
  const std::int64_t started_ns_;
  SyncGate gate_;
  WorkerTable workers_;
  std::map<std::uint64_t, std::int64_t> sessions_;  // session -> end of its lease
  Notify commands_changed_;                         // workers may have something to do
  Notify workers_changed_;                          // one has registered
  Notify closing_;
  bool stopping_ = false;
  std::optional<Error> failed_;
  Scope scope_;
};

}  // namespace gradfs
