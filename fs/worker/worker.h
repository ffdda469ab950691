// Worker: serves images to the mounts of its host, hosts coprocessors, and does what the master asks for by
// the answers to its long poll. Runs on one executor's thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fs/worker/bound_model.h"

namespace gradfs {

struct WorkerOptions {
  std::string name;  // host name, for people
  std::string host;  // host id
  std::string unix_socket;
  std::string tcp_address;  // "" : none
  std::string directory;    // --dir; keeps the worker's id
  unsigned compute_threads = 2;
};

class Worker {
 public:
  Worker(Executor& executor, Clock& clock, RpcClient& master, ImageStore& store, WorkerOptions options);
  ~Worker();

  // Registers with the master (as often as it takes), loads what is bound, registers the handlers with
  // `server`. The caller starts to listen when this has returned.
  Task<Result<void>> start(RpcServer& server);
  // Ends the loops and the bound models.
  Task<> stop();

 private:
  Task<Result<wire::RegisterWorkerResponse>> register_with_master();
  Task<> load_bindings(wire::RegisterWorkerResponse registered);
  Task<> poll_loop();
  Task<> obey(wire::WorkerPollResponse commands);
  Task<> report_inode(InodeId inode);
  Task<> drop_binding(BindingId binding);
  void add_handlers(RpcServer& server);

  Task<Result<wire::OpenImageResponse>> open_image(wire::OpenImageRequest request, CallContext& context);
  Task<Result<wire::Empty>> drop_image(wire::DropImageRequest request, CallContext& context);
  Task<Result<wire::CommitBindResponse>> bind(wire::BindRequest request, CallContext& context);
  Task<Result<wire::PushResponse>> push(wire::PushRequest request, CallContext& context);
  Task<Result<wire::Empty>> detach(wire::DetachRequest request, CallContext& context);
  Task<Result<wire::ModelStatusResponse>> model_status(wire::ModelStatusRequest request,
                                                       CallContext& context);
  Task<Result<wire::WorkerStatusResponse>> worker_status();
  Result<std::shared_ptr<BoundModel>> find(std::uint64_t binding) const;
  Task<Result<wire::CommitBindRequest>> prepare_bind(const wire::BindRequest& request);

  Executor& executor_;
  Clock& clock_;
  RpcClient& master_;
  ImageStore& store_;
  const WorkerOptions options_;
  ThreadPool compute_;
  WorkerPool blocking_;
  Scope scope_;
  WorkerId worker_;
  std::uint64_t incarnation_ = 0;
  std::map<BindingId, std::shared_ptr<BoundModel>> models_;
  std::map<BindingId, Error> broken_;   // bindings that could not be loaded, and why
  std::vector<std::uint64_t> dropped_;  // to tell the master
  std::vector<std::uint64_t> dropped_bindings_;
  bool stopping_ = false;
};

}  // namespace gradfs
