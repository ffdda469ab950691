#include "fs/base/program.h"

#include <sys/resource.h>

#include <cstdio>
#include <functional>

namespace gradfs {
namespace {

constexpr std::size_t kSocketPathMax = 104;

}  // namespace

int print_error(const std::string& program, const Error& error) {
  std::string line = program + ": " + error.message();
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  std::fprintf(stderr, "%s\n", line.c_str());
  return 1;
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("localhost:") || address.starts_with("[::1]:");
}

std::string socket_path(const std::string& directory, const std::string& name) {
  const std::string path = directory + "/" + name;
  if (path.size() <= kSocketPathMax) return path;
  char hash[20];
  std::snprintf(hash, sizeof hash, "%016zx", std::hash<std::string>{}(path));
  return std::string("/tmp/gradfs-") + hash + ".sock";
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // at worst the old limit stays
}

}  // namespace gradfs
