#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "fs/base/size.h"
#include "tools/fsctl/commands.h"
#include "tools/fsctl/output.h"
#include "tools/fsctl/session.h"

namespace gradfs::fsctl {
namespace {

constexpr std::int64_t kWorkerTimeout_ns = 2 * kSecond_ns;

struct WorkerReport {
  wire::WorkerInfo info;
  std::optional<wire::WorkerStatusResponse> status;  // what the worker itself says; nullopt: no answer
};

Task<Result<wire::WorkerStatusResponse>> ask(Filesystem& filesystem, wire::WorkerAddress address) {
  GRADFS_CO_TRY(RpcClient * client, co_await filesystem.worker(address));
  const CallOptions options{.timeout_ns = kWorkerTimeout_ns};
  co_return co_await client->call<rpc::WorkerStatus>(wire::Empty(), options);
}

nlohmann::json to_json(const WorkerReport& worker) {
  const wire::WorkerInfo& info = worker.info;
  nlohmann::json out = {{"worker", format_id(info.address().worker())},
                        {"alive", info.alive()},
                        {"answers", worker.status.has_value()},
                        {"incarnation", info.incarnation()},
                        {"host", info.address().host()},
                        {"unix_socket", info.address().unix_socket()},
                        {"address", info.address().address()},
                        {"capacity_bytes", info.capacity_bytes()},
                        {"used_bytes", info.used_bytes()}};
  if (worker.status) {
    out["capacity_bytes"] = worker.status->capacity_bytes();
    out["used_bytes"] = worker.status->used_bytes();
    out["images"] = worker.status->images();
    out["directory"] = worker.status->directory();
    out["private_tmpfs"] = worker.status->private_tmpfs();
  }
  return out;
}

void print_json(const Filesystem& filesystem, const wire::ClusterStatusResponse& status,
                const std::vector<WorkerReport>& workers) {
  nlohmann::json out = {{"master", filesystem.address()},
                        {"cluster", status.cluster()},
                        {"epoch", status.epoch()},
                        {"inodes", status.inodes()},
                        {"mutations", status.mutations()},
                        {"bindings", status.bindings()},
                        {"started_ns", status.started_ns()},
                        {"workers", nlohmann::json::array()},
                        {"sessions", nlohmann::json::array()}};
  for (const WorkerReport& worker : workers) out["workers"].push_back(to_json(worker));
  for (const wire::SessionInfo& session : status.sessions()) {
    out["sessions"].push_back({{"session", format_id(session.session())},
                               {"host", session.host()},
                               {"mount_point", session.mount_point()},
                               {"write_leases", session.write_leases()},
                               {"alive", session.alive()}});
  }
  std::printf("%s\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

void print_text(const Filesystem& filesystem, const wire::ClusterStatusResponse& status,
                const std::vector<WorkerReport>& workers) {
  std::printf("master %s  epoch %llu  since %s  %s inodes, %u bindings\n", filesystem.address().c_str(),
              static_cast<unsigned long long>(status.epoch()), format_time(status.started_ns()).c_str(),
              format_count(status.inodes()).c_str(), status.bindings());
  for (const WorkerReport& worker : workers) {
    const std::string id = format_id(worker.info.address().worker());
    if (!worker.status) {
      std::printf("worker %s  %s\n", id.c_str(), worker.info.alive() ? "does not answer" : "is not running");
      continue;
    }
    std::printf("worker %s  alive  %s of %s used by %s images  %s\n", id.c_str(),
                format_size(worker.status->used_bytes()).c_str(),
                format_size(worker.status->capacity_bytes()).c_str(),
                format_count(worker.status->images()).c_str(), printable(worker.status->directory()).c_str());
  }
  for (const wire::SessionInfo& session : status.sessions()) {
    if (session.mount_point().empty()) continue;
    std::printf("mount  %s  %s  %s%s\n", format_id(session.session()).c_str(),
                session.alive() ? "alive" : "lost", printable(session.mount_point()).c_str(),
                session.write_leases() > 0
                    ? ("  " + format_count(session.write_leases()) + " files open for writing").c_str()
                    : "");
  }
  if (workers.empty()) std::printf("no worker has ever registered: nothing can be stored\n");
}

Task<Result<void>> show_status(Filesystem& filesystem, bool json) {
  GRADFS_CO_TRY(auto status, co_await filesystem.call<rpc::ClusterStatus>(wire::Empty(), "status"));
  std::vector<WorkerReport> workers;
  for (const wire::WorkerInfo& info : status.workers()) {
    WorkerReport report;
    report.info = info;
    if (info.alive()) {
      auto answer = co_await ask(filesystem, info.address());
      if (answer) report.status = std::move(answer).value();
    }
    workers.push_back(std::move(report));
  }
  if (json) {
    print_json(filesystem, status, workers);
  } else {
    print_text(filesystem, status, workers);
  }
  co_return ok();
}

Task<Result<void>> show_space(Filesystem& filesystem, bool json) {
  GRADFS_CO_TRY(auto space, co_await filesystem.call<rpc::StatFs>(wire::Empty(), "df"));
  const std::uint64_t used = space.total_bytes() - std::min(space.total_bytes(), space.free_bytes());
  if (json) {
    const nlohmann::json out = {{"total_bytes", space.total_bytes()},
                                {"used_bytes", used},
                                {"free_bytes", space.free_bytes()},
                                {"inodes", space.inodes()}};
    std::printf("%s\n", out.dump(2).c_str());
    co_return ok();
  }
  std::vector<std::vector<std::string>> rows{{"MASTER", "SIZE", "USED", "FREE", "INODES"}};
  rows.push_back({filesystem.address(), format_size(space.total_bytes()), format_size(used),
                  format_size(space.free_bytes()), format_count(space.inodes())});
  print_table(rows);
  co_return ok();
}

}  // namespace

void add_status_commands(CLI::App& app, Action& action) {
  auto json = std::make_shared<bool>(false);
  auto* status = app.add_subcommand("status", "master, workers and mounts");
  status->add_flag("--json", *json, "as JSON");
  status->callback([json, &action] {
    action = [json] {
      return run_command([json](Filesystem& filesystem) { return show_status(filesystem, *json); });
    };
  });
  auto* df = app.add_subcommand("df", "memory in use and free");
  df->add_flag("--json", *json, "as JSON");
  df->callback([json, &action] {
    action = [json] {
      return run_command([json](Filesystem& filesystem) { return show_space(filesystem, *json); });
    };
  });
  auto* version = app.add_subcommand("version", "version of this program");
  version->add_flag("--json", *json, "as JSON");
  version->callback([json, &action] {
    action = [json] {
      std::printf(*json ? "{\"version\": \"%s\"}\n" : "gradfs %s\n", GRADFS_VERSION);
      return 0;
    };
  });
}

}  // namespace gradfs::fsctl
