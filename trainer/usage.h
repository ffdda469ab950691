// What processes use of the machine, as /proc tells it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gradfs::trainer {

// User and system time of a process, in nanoseconds; none if it is gone.
std::optional<std::int64_t> cpu_time_ns(pid_t pid);
// Its share of memory: pages that several processes have mapped count in parts, so that a sum over those is
// right. None if it is gone, or another user's.
std::optional<std::uint64_t> proportional_bytes(pid_t pid);
// The servers of gradfs that run on this host: master, worker, mount.
std::vector<pid_t> filesystem_servers();

// What a run uses together with the servers that work for it. One thread.
class UsageMeter {
 public:
  // The servers' time counts from now on.
  explicit UsageMeter(const std::vector<pid_t>& servers);

  // Looks at the memory of these processes and the servers together. excluded_bytes: what is not to be
  // counted, as it only serves to measure. Takes about a millisecond a process.
  void sample(const std::vector<pid_t>& processes, std::uint64_t excluded_bytes);
  // The most that was seen.
  [[nodiscard]] std::uint64_t peak_bytes() const noexcept { return peak_bytes_; }
  // What the servers have used since the beginning, as far as they still run or were sampled.
  [[nodiscard]] double server_cpu_seconds();

 private:
  struct Server {
    std::int64_t begin_ns = 0;
    std::int64_t now_ns = 0;
  };
  void look_at_servers();

  std::map<pid_t, Server> servers_;
  std::uint64_t peak_bytes_ = 0;
};

}  // namespace gradfs::trainer
