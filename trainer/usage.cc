#include "trainer/usage.h"

#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <sstream>

#include "fs/base/clock.h"
#include "fs/base/fd.h"

namespace gradfs::trainer {
namespace {

// After the process's name, which may hold anything: utime and stime are the 12th and 13th field (proc(5)).
constexpr int kFieldsBeforeTimes = 11;

std::string process_file(pid_t pid, const char* name) { return "/proc/" + std::to_string(pid) + "/" + name; }

bool is_server(pid_t pid) {
  const Result<std::string> name = read_text_file(process_file(pid, "comm"));
  if (!name) return false;
  for (const char* server : {"gradfs-master\n", "gradfs-worker\n", "gradfs-mount\n"}) {
    if (name.value() == server) return true;
  }
  return false;
}

}  // namespace

std::optional<std::int64_t> cpu_time_ns(pid_t pid) {
  const Result<std::string> text = read_text_file(process_file(pid, "stat"));
  if (!text) return std::nullopt;
  const std::size_t name_end = text.value().rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.value().substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < kFieldsBeforeTimes; ++i) fields >> skipped;
  std::int64_t user = 0;
  std::int64_t system = 0;
  if (!(fields >> user >> system)) return std::nullopt;
  return (user + system) * (kSecond_ns / ::sysconf(_SC_CLK_TCK));
}

std::optional<std::uint64_t> proportional_bytes(pid_t pid) {
  const Result<std::string> text = read_text_file(process_file(pid, "smaps_rollup"));
  if (!text) return std::nullopt;
  const std::size_t at = text.value().find("\nPss:");
  if (at == std::string::npos) return std::nullopt;
  std::istringstream line(text.value().substr(at + 5));
  std::uint64_t kibibytes = 0;
  if (!(line >> kibibytes)) return std::nullopt;
  return kibibytes << 10;
}

std::vector<pid_t> filesystem_servers() {
  std::vector<pid_t> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ptr == name.data() + name.size() && is_server(pid)) out.push_back(pid);
  }
  return out;
}

UsageMeter::UsageMeter(const std::vector<pid_t>& servers) {
  for (const pid_t pid : servers) {
    if (const std::optional<std::int64_t> now_ns = cpu_time_ns(pid)) servers_[pid] = {*now_ns, *now_ns};
  }
}

void UsageMeter::look_at_servers() {
  for (auto& [pid, server] : servers_) {
    if (const std::optional<std::int64_t> now_ns = cpu_time_ns(pid)) server.now_ns = *now_ns;
  }
}

void UsageMeter::sample(const std::vector<pid_t>& processes, std::uint64_t excluded_bytes) {
  std::uint64_t sum = 0;
  for (const pid_t pid : processes) sum += proportional_bytes(pid).value_or(0);
  for (const auto& [pid, server] : servers_) sum += proportional_bytes(pid).value_or(0);
  peak_bytes_ = std::max(peak_bytes_, sum - std::min(sum, excluded_bytes));
  look_at_servers();
}

double UsageMeter::server_cpu_seconds() {
  look_at_servers();
  std::int64_t sum_ns = 0;
  for (const auto& [pid, server] : servers_)
    sum_ns += std::max<std::int64_t>(0, server.now_ns - server.begin_ns);
  return static_cast<double>(sum_ns) / kSecond_ns;
}

}  // namespace gradfs::trainer
