// The command groups of fsctl. Each adds its subcommands; the chosen one sets the action, whose result is the
// exit status of the program.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace gradfs::fsctl {

using Action = std::function<int()>;

void add_cluster_commands(CLI::App& app, Action& action);  // cluster up, down
void add_status_commands(CLI::App& app, Action& action);   // status, version, df
void add_files_commands(CLI::App& app, Action& action);    // ls, stat
void add_model_commands(CLI::App& app, Action& action);    // model create, list, info
void add_coproc_commands(CLI::App& app, Action& action);   // coproc list

}  // namespace gradfs::fsctl
