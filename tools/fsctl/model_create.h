// fsctl model create.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace gradfs::fsctl {

struct CreateArguments {
  std::string path;
  std::string layers;  // one of layers and from
  std::string from;
  std::string optimizer = "sgd";
  std::optional<double> lr;  // else the optimizer's default
  std::uint64_t seed = 0;
  bool plain = false;  // only the file: nothing is bound
};

// Returns the exit status. The model appears under its name when it is complete, or not at all.
int create_model(const CreateArguments& arguments);

}  // namespace gradfs::fsctl
