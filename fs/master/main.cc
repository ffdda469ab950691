// gradfs-master: the namespace of a cluster.
#include <sys/file.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "fs/base/fd.h"
#include "fs/base/host.h"
#include "fs/base/log.h"
#include "fs/base/program.h"
#include "fs/master/master_service.h"

namespace gradfs {
namespace {

constexpr int kExitFailed = 70;  // EX_SOFTWARE: started again by whoever watches

struct Arguments {
  std::string data;
  std::string listen = "127.0.0.1:7400";
  std::string log_level = "info";
  bool insecure = false;
};

// Held for the life of the process: two masters never share a directory.
Result<UniqueFd> lock_directory(const std::string& directory) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) return Error(from_errno(failure.value()), directory + ": " + failure.message());
  GRADFS_TRY(UniqueFd lock, open_file(directory + "/lock", O_RDWR | O_CREAT, 0600));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) return Error(Errc::kBusy, directory + ": another gradfs-master is using it");
  return errno_error(directory + "/lock");
}

std::string new_cluster_name() {
  SystemRandom random;
  char name[20];
  std::snprintf(name, sizeof name, "%016llx", static_cast<unsigned long long>(random.next_u64()));
  return name;
}

Result<void> listen_everywhere(RpcServer& server, Transport& transport, const Arguments& arguments,
                               const std::string& unix_socket) {
  ::unlink(unix_socket.c_str());  // of a master that was killed: we hold the lock
  GRADFS_TRYV(server.listen(transport, unix_socket));
  GRADFS_TRY(auto address, server.listen(transport, arguments.listen));
  spdlog::info("ready at {} and {}", address, unix_socket);
  notify_service_manager("READY=1");
  return ok();
}

Task<> end(MasterService& service, RpcServer& server, Executor& executor) {
  notify_service_manager("STOPPING=1");
  service.close();
  co_await server.shutdown(2 * kSecond_ns);
  co_await service.stop();
  executor.stop();
}

Result<void> run(const Arguments& arguments) {
  if (!arguments.insecure && !is_loopback(arguments.listen)) {
    return Error(Errc::kPermission, arguments.listen + " is not a loopback address; add --insecure");
  }
  GRADFS_TRY(UniqueFd lock, lock_directory(arguments.data));
  const std::string directory = std::filesystem::canonical(arguments.data).string();
  GRADFS_TRY(auto store, open_rocks_store(directory + "/meta"));
  GRADFS_TRY(auto names, Namespace::open(*store));
  JournalStart start;
  start.cluster = new_cluster_name();
  start.uid = ::geteuid();
  start.gid = ::getegid();
  start.time_ns = real_wall_ns();
  GRADFS_TRY(auto journal, Journal::start(*store, *names, start));
  spdlog::info("epoch {}, {} inodes", journal->epoch(), names->header().inodes());

  Executor executor;
  const auto transport = make_socket_transport(executor);
  MasterOptions options;
  options.host = host_id();
  options.unix_socket = socket_path(directory, "master.sock");
  options.failed = [](const Error&) { std::_Exit(kExitFailed); };
  MasterService service(executor, executor.clock(), *store, *names, *journal, options);
  RpcServer server(executor);
  service.add_handlers(server);
  GRADFS_TRYV(service.start());
  Scope scope(executor);
  executor.on_termination([&] { scope.spawn(end(service, server, executor)); });
  GRADFS_TRYV(listen_everywhere(server, *transport, arguments, options.unix_socket));
  executor.run();
  ::unlink(options.unix_socket.c_str());
  spdlog::info("ended");
  return ok();
}

}  // namespace
}  // namespace gradfs

int main(int argc, char** argv) {
  gradfs::Arguments arguments;
  CLI::App app{"gradfs-master: the namespace of a cluster"};
  app.set_version_flag("--version", GRADFS_VERSION);
  app.set_config("--config", "", "TOML file with these options");
  app.add_option("--data", arguments.data, "directory of the metadata")->required();
  app.add_option("--listen", arguments.listen, "ADDR:PORT")->envname("GRADFS_MASTER")->capture_default_str();
  app.add_flag("--insecure", arguments.insecure, "allow a --listen address that is not loopback");
  app.add_option("--log-level", arguments.log_level, "debug, info, warning, error")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  gradfs::start_logging("gradfs-master", arguments.log_level);
  const auto ended = gradfs::run(arguments);
  return ended ? 0 : gradfs::print_error("gradfs-master", ended.error());
}
