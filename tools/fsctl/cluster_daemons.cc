#include "tools/fsctl/cluster_daemons.h"

#include "fs/base/program.h"
#include "tools/fsctl/session.h"

namespace gradfs::fsctl {
namespace {

constexpr std::int64_t kProbeTimeout_ns = 300 * kMillisecond_ns;

Daemon daemon_of(const ClusterDirectory& directory, const std::string& role, const std::string& program) {
  return {.role = role,
          .program = program,
          .mark = directory.file(role),
          .pid_file = directory.file(role + ".pid"),
          .log_file = directory.file(role + ".log"),
          .arguments = {}};
}

Task<Result<void>> try_connect(Transport& transport, std::string address) {
  GRADFS_CO_TRYV(co_await transport.connect(address, kProbeTimeout_ns));
  co_return ok();
}

Task<Result<wire::ClusterStatusResponse>> ask_status(Filesystem& filesystem) {
  return filesystem.call<rpc::ClusterStatus>(wire::Empty(), "status");
}

Task<Result<wire::WorkerStatusResponse>> ask_worker(RpcClient& client) {
  const CallOptions options{.timeout_ns = kProbeTimeout_ns};
  co_return co_await client.call<rpc::WorkerStatus>(wire::Empty(), options);
}

}  // namespace

Daemon master_daemon(const ClusterDirectory& directory, const ClusterOptions& options) {
  Daemon daemon = daemon_of(directory, "master", "gradfs-master");
  daemon.arguments = {"--data", daemon.mark, "--listen", options.listen};
  return daemon;
}

Daemon worker_daemon(const ClusterDirectory& directory, const ClusterOptions& options) {
  Daemon daemon = daemon_of(directory, "worker-0", "gradfs-worker");
  daemon.arguments = {"--master", options.listen, "--dir", daemon.mark, "--memory", options.memory};
  return daemon;
}

Daemon mount_daemon(const ClusterDirectory& directory, const ClusterOptions& options) {
  Daemon daemon = daemon_of(directory, "mount", "gradfs-mount");
  daemon.mark = options.mount;
  daemon.arguments = {options.listen, options.mount, "-f", "-o", "passthrough=" + options.passthrough};
  return daemon;
}

bool is_listening(const std::string& address) {
  Executor executor;
  const auto transport = make_socket_transport(executor);
  return run_blocking(executor, try_connect(*transport, address)).has_value();
}

bool master_answers(const std::string& address) {
  return Session::open(address, kProbeTimeout_ns).has_value();
}

std::optional<wire::WorkerInfo> find_worker(const ClusterDirectory& directory, const std::string& master) {
  auto session = Session::open(master, kProbeTimeout_ns);
  if (!session) return std::nullopt;
  auto status = session.value()->run(ask_status(session.value()->filesystem()));
  if (!status) return std::nullopt;
  const std::string socket = socket_path(directory.file("worker-0"), "worker.sock");
  for (const wire::WorkerInfo& worker : status.value().workers()) {
    if (worker.address().unix_socket() == socket) return worker;
  }
  return std::nullopt;
}

bool worker_answers(const wire::WorkerAddress& address) {
  const auto endpoint = worker_endpoint(address);
  if (!endpoint) return false;
  Executor executor;
  const auto transport = make_socket_transport(executor);
  RpcClient client(executor, *transport, endpoint.value(), SystemRandom().next_u64());
  return run_blocking(executor, ask_worker(client)).has_value();
}

}  // namespace gradfs::fsctl
