#include "trainer/peers/allreduce.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <thread>

#include "fs/base/clock.h"
#include "trainer/peers/peer.h"

namespace gradfs::trainer {
namespace {

constexpr std::int64_t kCopyWait_ns = 60 * kSecond_ns;
constexpr std::chrono::microseconds kCopyLook{500};

// A child of this process has ended: the launcher, as there is no other.
bool launcher_has_ended() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

// The parameters of rank 0, which copies them when it is asked to, and at its end. Of ranks that are killed
// the last copy is what is left.
class RankObserver final : public ParameterSource {
 public:
  RankObserver(RunControl& control, std::span<const float> copy) : control_(control), copy_(copy) {}

  Result<std::span<const float>> current() override {
    const std::uint32_t wanted = control_.wanted_copy.fetch_add(1) + 1;
    const std::int64_t deadline_ns = real_now_ns() + kCopyWait_ns;
    const auto made = [&] { return control_.made_copy.load(std::memory_order_acquire) >= wanted; };
    while (!made() && !control_.gone[0].load(std::memory_order_acquire)) {
      if (real_now_ns() > deadline_ns) return Error(Errc::kTimeout, "rank 0 does not give its parameters");
      // A rank that has left has made its last copy, and says nothing any more.
      if (control_.left.load(std::memory_order_acquire) || launcher_has_ended()) break;
      std::this_thread::sleep_for(kCopyLook);
    }
    return copy_;
  }

 private:
  RunControl& control_;
  std::span<const float> copy_;
};

class Allreduce final : public Peer {
 public:
  Allreduce(const ExchangeOptions& options, PeerModel model, UniqueFd copy_fd)
      : Peer(options, std::move(model)),
        copy_fd_(std::move(copy_fd)),
        observer_(*options.control, model_.parameters.span()) {}

  [[nodiscard]] std::string name() const override { return "allreduce"; }
  [[nodiscard]] bool needs_all_workers() const override { return true; }
  ParameterSource& observer() override { return observer_; }
  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    return Error(Errc::kNotSupported, "a rank is a program of its own");
  }

  [[nodiscard]] bool launches_workers() const override { return true; }
  Result<WorkerLaunch> launch(const std::vector<int>& record_fds) override {
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    const std::string rank = self.parent_path() / "gradfs-train-rank";
    if (::access(rank.c_str(), X_OK) != 0) return errno_error(rank);
    WorkerLaunch out;
    out.command = {"mpirun", "--oversubscribe", "--bind-to", "none", "-n", std::to_string(options_.workers)};
    if (::geteuid() == 0) out.command.insert(out.command.begin() + 1, "--allow-run-as-root");
    out.command.push_back(rank);
    out.command.insert(out.command.end(), options_.arguments.begin(), options_.arguments.end());
    const RankEnvironment environment{::getpid(), options_.control_fd, copy_fd_.get(), record_fds};
    out.environment = {std::string(kRankVariable) + "=" + format_rank_environment(environment)};
    return out;
  }

 private:
  UniqueFd copy_fd_;
  RankObserver observer_;
};

}  // namespace

std::string format_rank_environment(const RankEnvironment& environment) {
  std::ostringstream out;
  out << environment.supervisor_pid << ' ' << environment.control_fd << ' ' << environment.parameters_fd;
  for (const int fd : environment.record_fds) out << ' ' << fd;
  return out.str();
}

Result<RankEnvironment> parse_rank_environment(const std::string& text) {
  std::istringstream in(text);
  RankEnvironment out;
  in >> out.supervisor_pid >> out.control_fd >> out.parameters_fd;
  for (int fd = 0; in >> fd;) out.record_fds.push_back(fd);
  if (!in.eof() || out.record_fds.empty()) {
    return Error(Errc::kInvalid, std::string(kRankVariable) + ": gradfs-train sets it when it starts mpirun");
  }
  return out;
}

Result<std::unique_ptr<Architecture>> open_allreduce(const ExchangeOptions& options) {
  GRADFS_TRY(PeerModel model, open_peer_model(options));
  UniqueFd copy_fd(::memfd_create("gradfs-train-parameters", MFD_CLOEXEC));
  if (!copy_fd) return errno_error("memfd_create");
  GRADFS_TRY(FloatArray copy, FloatArray::map_shared(copy_fd, model.layout.parameters()));
  std::ranges::copy(model.parameters.span(), copy.data());
  model.parameters = std::move(copy);
  return std::unique_ptr<Architecture>(
      std::make_unique<Allreduce>(options, std::move(model), std::move(copy_fd)));
}

}  // namespace gradfs::trainer
