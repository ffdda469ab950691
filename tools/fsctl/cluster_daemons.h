// The three daemons of a cluster directory, and how one sees from outside that they are ready.
#pragma once

#include <optional>
#include <string>

#include "fs/wire/gradfs.pb.h"
#include "tools/fsctl/cluster_directory.h"
#include "tools/fsctl/daemon.h"

namespace gradfs::fsctl {

Daemon master_daemon(const ClusterDirectory& directory, const ClusterOptions& options);
Daemon worker_daemon(const ClusterDirectory& directory, const ClusterOptions& options);
Daemon mount_daemon(const ClusterDirectory& directory, const ClusterOptions& options);

// Something accepts connections at ADDR:PORT.
bool is_listening(const std::string& address);
// A master answers there.
bool master_answers(const std::string& address);
// What the master says of the worker of this directory; nullopt: it has never seen it, or does not answer.
std::optional<wire::WorkerInfo> find_worker(const ClusterDirectory& directory, const std::string& master);
// The worker itself answers.
bool worker_answers(const wire::WorkerAddress& address);

}  // namespace gradfs::fsctl
