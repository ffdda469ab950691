// fsctl cluster up and down.
#pragma once

#include <optional>
#include <string>

namespace gradfs::fsctl {

struct UpArguments {
  std::string directory;
  // What is not given comes from cluster.toml, then from the defaults.
  std::optional<std::string> mount;
  std::optional<unsigned> workers;
  std::optional<std::string> memory;
  std::optional<std::string> passthrough;
};

struct DownArguments {
  std::string directory;
  bool purge = false;
  bool yes = false;
};

// Both print what they do, and return the exit status.
int cluster_up(const UpArguments& arguments);
int cluster_down(const DownArguments& arguments);

}  // namespace gradfs::fsctl
