// gradfs-bench: every figure beside its reference, measured in the same run.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fs/base/log.h"
#include "fs/base/program.h"
#include "fs/base/size.h"
#include "tools/bench/bench.h"
#include "tools/bench/report.h"

namespace gradfs::bench {
namespace {

struct Arguments {
  Options options;
  std::string size = "512MiB";
  std::string memory = "4GiB";
  std::string json;
  bool size_given = false;
  bool markdown = false;
};

using Bench = Result<Report> (*)(const Options&);

void on_signal(int) { request_interrupt(); }

// Without SA_RESTART: a call that waits in the mount returns, and the benchmark ends.
void catch_signals() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

Result<void> read_sizes(Arguments& arguments) {
  Options& options = arguments.options;
  GRADFS_TRY(options.memory_bytes, parse_size(arguments.memory));
  GRADFS_TRY(options.size_bytes,
             parse_size(options.quick && !arguments.size_given ? "128MiB" : arguments.size));
  if (options.size_bytes % (1 << 20) != 0) return Error(Errc::kInvalid, "--size must be a multiple of 1MiB");
  return ok();
}

Result<void> run(const Arguments& arguments, Bench bench) {
  const Options& options = arguments.options;
  catch_signals();
  auto report = bench(options);
  show_progress("");
  if (interrupted()) return Error(Errc::kInterrupted, "nothing is reported");
  if (!report) return std::move(report).error();
  if (!arguments.json.empty()) {
    GRADFS_TRYV(write_json(arguments.json, to_json(report.value(), options.quick)));
  }
  const std::string text = arguments.markdown ? to_markdown(report.value()) : to_table(report.value());
  std::fputs(text.c_str(), stdout);
  return ok();
}

int main_of(int argc, char** argv) {
  Arguments arguments;
  Bench bench = nullptr;
  CLI::App app{"gradfs-bench: every figure beside its reference, measured in the same run"};
  app.set_version_flag("--version", GRADFS_VERSION);
  app.require_subcommand(1);
  const auto add = [&](const char* name, const char* text, Bench function) {
    CLI::App* command = app.add_subcommand(name, text);
    command->callback([&bench, function] { bench = function; });
    command->add_option("--json", arguments.json, "write the report to this file, too");
    command->add_flag("--markdown", arguments.markdown, "print Markdown instead of a table");
    command->add_flag("--quick", arguments.options.quick, "short: to see that it works, not to report");
    return command;
  };
  CLI::App* mount =
      add("mount", "reads, writes and maps, beside a bare passthrough mount and /dev/shm", bench_mount);
  CLI::App* metadata =
      add("metadata", "create, stat, rename, unlink, ..., beside empty FUSE round trips", bench_metadata);
  add("descent", "the update kernels, beside a bare read-modify-write of the same streams", bench_descent);
  add("gradient", "the trainer's gradients on one thread, beside a large matrix product", bench_gradient);
  CLI::App* cycle =
      add("cycle", "gradient to updated model, beside a memcpy and the kernel alone", bench_cycle);
  for (CLI::App* command : {mount, metadata, cycle}) {
    command
        ->add_option("--mount", arguments.options.mount,
                     "a gradfs mount that is there; without it, a cluster is started")
        ->check(CLI::ExistingDirectory);
    command->add_option("--memory", arguments.memory, "memory of a cluster that is started")
        ->capture_default_str();
  }
  for (CLI::App* command : {mount, metadata}) {
    command->add_flag("--against-itself", arguments.options.against_itself,
                      "a second bare mount in the place of gradfs: shows how exact the method is");
  }
  metadata->add_flag("--unpinned", arguments.options.unpinned,
                     "let the kernel place client and daemons on processors");
  CLI::Option* size = mount->add_option("--size", arguments.size, "size of the files (128MiB with --quick)")
                          ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  arguments.size_given = size->count() > 0;
  start_logging("gradfs-bench", "warning");
  const auto sizes = read_sizes(arguments);
  if (!sizes) return print_error("gradfs-bench", sizes.error()), 2;
  const auto done = run(arguments, bench);
  return done ? 0 : print_error("gradfs-bench", done.error());
}

}  // namespace
}  // namespace gradfs::bench

int main(int argc, char** argv) { return gradfs::bench::main_of(argc, argv); }
