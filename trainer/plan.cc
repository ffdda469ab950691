#include "trainer/plan.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <sstream>

#include "fs/base/check.h"
#include "fs/base/fd.h"
#include "fs/base/size.h"
#include "trainer/usage.h"

namespace gradfs::trainer {
namespace {

constexpr double kTalkFactor = 3 * 4 * 1.5;
constexpr std::uint64_t kProcessBytes = 4 << 20;  // of a worker, without its model and data

// A Network's activations, and the two deltas of its widest layer.
std::uint64_t network_bytes(const PlanInput& input) {
  std::uint64_t widest = 0;
  for (const DenseLayer& layer : input.layers) widest = std::max<std::uint64_t>(widest, layer.outputs);
  return input.batch_size * (units_of(input) + 2 * widest) * sizeof(float);
}

// Computes one gradient; how much this process has grown meanwhile.
std::uint64_t grow(const PlanInput& input) {
  const std::uint64_t before = proportional_bytes(::getpid()).value_or(0);
  std::vector<float> parameters(parameters_of(input), 1e-3F);
  std::vector<std::vector<float>> copies(input.copies_a_worker, std::vector<float>(parameters.size()));
  if (copies.empty()) copies.emplace_back(parameters.size());
  Network network(input.layers, input.batch_size);
  std::ranges::fill(network.batch(), 0.5F);
  const std::vector<std::uint8_t> labels(input.batch_size);
  network.gradient(parameters.data(), labels, 1.0F, false, copies.front().data());
  const std::uint64_t after = proportional_bytes(::getpid()).value_or(0);
  const std::uint64_t model = parameters.size() * sizeof(float);  // counts once for all
  return after > before + model ? after - before - model : 0;
}

std::optional<std::uint64_t> number_in(const std::string& path) {
  const Result<std::string> text = read_text_file(path);
  std::uint64_t value = 0;
  if (!text || std::from_chars(text.value().data(), text.value().data() + text.value().size(), value).ec !=
                   std::errc()) {
    return std::nullopt;
  }
  return value;
}

// What a control group has left; none if it has no limit, or does not tell.
std::optional<std::uint64_t> left_in(const std::string& limit_file, const std::string& usage_file) {
  const std::optional<std::uint64_t> limit = number_in(limit_file);
  const std::optional<std::uint64_t> usage = number_in(usage_file);
  if (!limit || !usage) return std::nullopt;
  return *limit > *usage ? *limit - *usage : 0;
}

// Of this process's group and of all above it (cgroup v2), the least that is left.
std::optional<std::uint64_t> left_in_own_groups() {
  const Result<std::string> text = read_text_file("/proc/self/cgroup");
  const std::size_t at = text ? text.value().find("0::") : std::string::npos;
  std::string group;
  if (at != std::string::npos) group = text.value().substr(at + 3, text.value().find('\n', at) - at - 3);
  std::optional<std::uint64_t> least;
  while (true) {
    const std::string path = "/sys/fs/cgroup" + group;
    const std::optional<std::uint64_t> left = left_in(path + "/memory.max", path + "/memory.current");
    if (left) least = std::min(*left, least.value_or(*left));
    if (group.empty()) return least;
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
}

}  // namespace

std::uint64_t parameters_of(const PlanInput& input) {
  std::uint64_t count = 0;
  for (const DenseLayer& layer : input.layers) count += (layer.inputs + 1) * layer.outputs;
  return count;
}

std::uint64_t units_of(const PlanInput& input) {
  std::uint64_t count = input.layers.front().inputs;
  for (const DenseLayer& layer : input.layers) count += layer.outputs;
  return count;
}

std::uint64_t shared_bytes(const PlanInput& input) {
  return (1 + input.states + input.copies_in_all) * parameters_of(input) * sizeof(float);
}

std::uint64_t talk_formula_bytes(const PlanInput& input) {
  const auto values = static_cast<double>(parameters_of(input) + input.batch_size * units_of(input));
  return static_cast<std::uint64_t>(values * kTalkFactor * static_cast<double>(input.workers));
}

std::uint64_t estimate_bytes(const PlanInput& input) {
  const std::uint64_t model = parameters_of(input) * sizeof(float);
  const std::uint64_t worker = input.copies_a_worker * model + network_bytes(input) + kProcessBytes;
  return shared_bytes(input) + input.workers * worker;
}

Result<std::uint64_t> measure_worker_bytes(const PlanInput& input) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return errno_error("pipe");
  const UniqueFd reader(fds[0]);
  UniqueFd writer(fds[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) {
    const std::uint64_t bytes = grow(input);
    const bool written = ::write(writer.get(), &bytes, sizeof bytes) == sizeof bytes;
    ::_exit(written ? 0 : 1);
  }
  writer.reset();
  std::uint64_t bytes = 0;
  ssize_t size = -1;
  while ((size = ::read(reader.get(), &bytes, sizeof bytes)) < 0 && errno == EINTR) {
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (size == sizeof bytes && bytes > 0) return bytes;
  return Error(Errc::kIo, "a worker of this size cannot be measured: it was ended, as for want of memory");
}

std::uint64_t available_bytes() {
  std::uint64_t available = 0;
  if (const Result<std::string> text = read_text_file("/proc/meminfo"); text) {
    const std::size_t at = text.value().find("MemAvailable:");
    if (at != std::string::npos) std::istringstream(text.value().substr(at + 13)) >> available;
  }
  available <<= 10;
  const std::string old_group = "/sys/fs/cgroup/memory/memory.";  // cgroup v1, as containers see their own
  for (const std::optional<std::uint64_t> left :
       {left_in_own_groups(), left_in(old_group + "limit_in_bytes", old_group + "usage_in_bytes")}) {
    if (left) available = std::min(available, *left);
  }
  return available;
}

std::optional<std::string> memory_warning(std::uint64_t needed_bytes, std::uint64_t available_bytes) {
  if (needed_bytes <= available_bytes) return std::nullopt;
  return "this run needs about " + format_size(needed_bytes) + " of memory, and " +
         format_size(available_bytes) + " are free: use fewer workers or a smaller batch";
}

}  // namespace gradfs::trainer
