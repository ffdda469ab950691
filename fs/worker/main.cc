// gradfs-worker: holds images in memory and runs coprocessors beside them.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "fs/base/host.h"
#include "fs/base/log.h"
#include "fs/base/program.h"
#include "fs/base/size.h"
#include "fs/worker/worker.h"

namespace gradfs {
namespace {

struct Arguments {
  std::string master = "127.0.0.1:7400";
  std::string directory;
  std::string memory = "4GiB";
  std::string host;
  std::string listen;
  std::string log_level = "info";
  unsigned threads = 0;
  bool insecure = false;
};

Task<> serve(Worker& worker, RpcServer& server, Transport& transport, const WorkerOptions& options,
             int& status, Executor& executor) {
  auto started = co_await worker.start(server);
  Result<std::string> listening = Error(Errc::kIo);
  if (started) listening = server.listen(transport, options.unix_socket);
  if (started && listening && !options.tcp_address.empty())
    listening = server.listen(transport, options.tcp_address);
  if (!started || !listening) {
    print_error("gradfs-worker", started ? listening.error() : started.error());
    status = 1;
    executor.stop();
    co_return;
  }
  spdlog::info("ready at {}", options.unix_socket);
  notify_service_manager("READY=1");
}

Task<> end(Worker& worker, RpcServer& server, Executor& executor) {
  co_await server.shutdown(2 * kSecond_ns);
  co_await worker.stop();
  executor.stop();
}

int run(const Arguments& arguments) {
  auto memory = parse_size(arguments.memory);
  if (!memory) return print_error("gradfs-worker", memory.error());
  if (!arguments.listen.empty() && !arguments.insecure && !is_loopback(arguments.listen)) {
    return print_error(
        "gradfs-worker",
        Error(Errc::kPermission, arguments.listen + " is not a loopback address; add --insecure"));
  }
  auto store = ImageStore::open(arguments.directory, memory.value());
  if (!store) return print_error("gradfs-worker", store.error());

  Executor executor;
  const auto transport = make_socket_transport(executor);
  SystemRandom random;
  RpcClient master(executor, *transport, arguments.master, random.next_u64());
  WorkerOptions options;
  options.name = arguments.host;
  options.host = host_id();
  options.directory = std::filesystem::canonical(arguments.directory).string();
  options.unix_socket = socket_path(options.directory, "worker.sock");
  options.tcp_address = arguments.listen;
  options.compute_threads =
      arguments.threads != 0 ? arguments.threads : std::max(1U, std::thread::hardware_concurrency());
  Worker worker(executor, executor.clock(), master, store.value(), options);
  RpcServer server(executor);
  Scope scope(executor);
  int status = 0;
  executor.on_termination([&] { scope.spawn(end(worker, server, executor)); });
  scope.spawn(serve(worker, server, *transport, options, status, executor));
  executor.run();
  return status;
}

}  // namespace
}  // namespace gradfs

int main(int argc, char** argv) {
  gradfs::Arguments arguments;
  CLI::App app{"gradfs-worker: holds images in memory and runs coprocessors beside them"};
  app.set_version_flag("--version", GRADFS_VERSION);
  app.set_config("--config", "", "TOML file with these options");
  app.add_option("--master", arguments.master, "ADDR:PORT of the master")
      ->envname("GRADFS_MASTER")
      ->capture_default_str();
  app.add_option("--dir", arguments.directory, "directory of this worker; its tmpfs is mounted below")
      ->required();
  app.add_option("--memory", arguments.memory, "size of the tmpfs, such as 4GiB")->capture_default_str();
  app.add_option("--host", arguments.host, "name of this host, for people");
  app.add_option("--listen", arguments.listen, "ADDR:PORT for peers on other hosts");
  app.add_option("--threads", arguments.threads, "threads for descent (0: as many as there are processors)");
  app.add_flag("--insecure", arguments.insecure, "allow a --listen address that is not loopback");
  app.add_option("--log-level", arguments.log_level, "debug, info, warning, error")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  gradfs::raise_descriptor_limit();
  gradfs::start_logging("gradfs-worker", arguments.log_level);
  return gradfs::run(arguments);
}
