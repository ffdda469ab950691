// fsctl: starts, looks at and repairs gradfs.
#include <CLI/CLI.hpp>

#include "fs/base/log.h"
#include "tools/fsctl/commands.h"
#include "tools/fsctl/output.h"

namespace gradfs::fsctl {
namespace {

// The line for a parse error: a word that is no command is named, and the help that applies.
int explain(CLI::App& app, int argc, char** argv, const CLI::ParseError& error) {
  CLI::App* current = &app;
  std::string path = "fsctl";
  std::string line = error.what();
  for (int i = 1; i < argc && argv[i][0] != '-'; ++i) {
    const std::string word = argv[i];
    if (current->get_subcommands([](CLI::App*) { return true; }).empty()) break;
    const auto next = current->get_subcommands([&](CLI::App* sub) { return sub->get_name() == word; });
    if (next.empty()) {
      line = "there is no command '" + word + "'";
      break;
    }
    current = next.front();
    path += " " + word;
  }
  if (const std::size_t end = line.find('\n'); end != std::string::npos) line.resize(end);
  return fail_usage(line + "; see " + path + " --help");
}

int run(int argc, char** argv) {
  CLI::App app{
      "fsctl: starts, looks at and repairs gradfs.\nGRADFS_MASTER=HOST:PORT names the master "
      "(default 127.0.0.1:7400). PATH is a path in gradfs or on a mount."};
  app.name("fsctl");
  app.set_version_flag("--version", GRADFS_VERSION);
  app.require_subcommand(1);
  Action action;
  add_cluster_commands(app, action);
  add_status_commands(app, action);
  add_files_commands(app, action);
  add_model_commands(app, action);
  add_coproc_commands(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app.exit(wanted);
  } catch (const CLI::ParseError& error) {
    return explain(app, argc, argv, error);
  }
  const int status = action();
  if (std::fflush(stdout) != 0) return fail(errno_error("stdout"));
  return status;
}

}  // namespace
}  // namespace gradfs::fsctl

int main(int argc, char** argv) {
  gradfs::start_logging("fsctl", "error");
  return gradfs::fsctl::run(argc, argv);
}
