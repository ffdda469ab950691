// allreduce: a copy of the model in every worker, and gradients added up among them by MPI. mpirun starts the
// workers (gradfs-train-rank); each takes the same step on its copy, so that all stay equal.
//
// MPI ends all ranks when one is lost: then the run is over.
#pragma once

#include "trainer/exchange.h"

namespace gradfs::trainer {

// Where a rank finds its supervisor: descriptors of that process, opened through /proc.
struct RankEnvironment {
  int supervisor_pid = 0;
  int control_fd = 0;
  int parameters_fd = 0;  // a copy of the parameters for the supervisor, made when it asks for one
  std::vector<int> record_fds;
};
inline constexpr const char* kRankVariable = "GRADFS_TRAIN_RANK";
std::string format_rank_environment(const RankEnvironment& environment);
// kInvalid: this is not what format_rank_environment writes.
Result<RankEnvironment> parse_rank_environment(const std::string& text);

Result<std::unique_ptr<Architecture>> open_allreduce(const ExchangeOptions& options);

}  // namespace gradfs::trainer
