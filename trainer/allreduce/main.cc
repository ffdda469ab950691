// gradfs-train-rank: a worker of gradfs-train --architecture allreduce, started by mpirun with the arguments
// of gradfs-train. Not for use by hand.
#include <fcntl.h>
#include <mpi.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "fs/base/program.h"
#include "trainer/allreduce/exchange.h"
#include "trainer/peers/allreduce.h"
#include "trainer/program/arguments.h"

namespace gradfs::trainer {
namespace {

constexpr const char* kRankProgram = "gradfs-train-rank";

// Its exit status.
Result<int> run_rank(const Arguments& arguments, const RankEnvironment& environment, std::size_t rank) {
  const std::string descriptors = "/proc/" + std::to_string(environment.supervisor_pid) + "/fd/";
  GRADFS_TRY(std::unique_ptr<SharedControl> control,
             SharedControl::open(descriptors + std::to_string(environment.control_fd)));
  GRADFS_TRY(UniqueFd copy_fd, open_file(descriptors + std::to_string(environment.parameters_fd), O_RDWR));
  GRADFS_TRY(UniqueFd pipe, open_file(descriptors + std::to_string(environment.record_fds[rank]), O_WRONLY));
  RecordWriter records(std::move(pipe));
  const ExchangeOptions options = exchange_options(arguments, "", *control);
  Result<PeerModel> model = open_peer_model(options);
  Result<Dataset> dataset = load_dataset(arguments.dataset);
  if (!model || !dataset) {
    records.fail(!model ? model.error().message() : dataset.error().message());
    return 1;
  }
  GRADFS_TRY(FloatArray copy, FloatArray::map_shared(copy_fd, model.value().layout.parameters()));
  RankArchitecture architecture(options, std::move(model.value()), copy.span());
  return work(dataset.value(), architecture, **control, run_options(arguments), rank, records);
}

int parse_and_run(int argc, char** argv) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  const char* variable = std::getenv(kRankVariable);
  const Result<RankEnvironment> environment = parse_rank_environment(variable == nullptr ? "" : variable);
  if (!environment) return print_error(kRankProgram, environment.error());
  const ParsedArguments parsed = parse_arguments(argc, argv);
  if (!parsed.arguments) return parsed.status;
  MPI_Init(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  ::prctl(PR_SET_NAME, ("train-w" + std::to_string(rank)).c_str());
  const Result<int> status = run_rank(*parsed.arguments, environment.value(), static_cast<std::size_t>(rank));
  if (!status) return print_error(kRankProgram, status.error());
  if (status.value() == 0) MPI_Finalize();  // without it mpirun ends the other ranks
  return status.value();
}

}  // namespace
}  // namespace gradfs::trainer

int main(int argc, char** argv) { return gradfs::trainer::parse_and_run(argc, argv); }
