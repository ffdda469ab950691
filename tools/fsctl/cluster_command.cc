#include <CLI/CLI.hpp>
#include <memory>

#include "tools/fsctl/cluster.h"
#include "tools/fsctl/commands.h"

namespace gradfs::fsctl {
namespace {

void add_up(CLI::App& group, Action& action) {
  auto* up = group.add_subcommand("up", "start what of the cluster is not running: master, worker, mount");
  auto arguments = std::make_shared<UpArguments>();
  up->add_option("--dir", arguments->directory,
                 "directory of the cluster: data, logs, pid files, cluster.toml")
      ->required();
  up->add_option("--mount", arguments->mount, "where to mount; made if missing (needed the first time)");
  up->add_option("--workers", arguments->workers, "workers on this host (1)");
  up->add_option("--memory", arguments->memory, "memory of a worker, such as 512MiB (4GiB)");
  up->add_option("--passthrough", arguments->passthrough, "data path of the mount: auto, on, off (auto)")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  up->footer("Options are remembered in DIR/cluster.toml. The master listens at GRADFS_MASTER.");
  up->callback([arguments, &action] { action = [arguments] { return cluster_up(*arguments); }; });
}

void add_down(CLI::App& group, Action& action) {
  auto* down = group.add_subcommand("down", "unmount and stop the cluster; its data stays");
  auto arguments = std::make_shared<DownArguments>();
  down->add_option("--dir", arguments->directory, "directory of the cluster")->required();
  down->add_flag("--purge", arguments->purge, "free its memory and delete all its data");
  down->add_flag("--yes", arguments->yes, "do not ask before a purge");
  down->callback([arguments, &action] { action = [arguments] { return cluster_down(*arguments); }; });
}

}  // namespace

void add_cluster_commands(CLI::App& app, Action& action) {
  auto* group = app.add_subcommand("cluster", "start and stop a cluster on this host");
  group->require_subcommand(1);
  add_up(*group, action);
  add_down(*group, action);
}

}  // namespace gradfs::fsctl
