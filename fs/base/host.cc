#include "fs/base/host.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>

#include "fs/base/fd.h"

namespace gradfs {

const std::string& host_id() {
  static const std::string id = [] {
    auto text = read_text_file("/proc/sys/kernel/random/boot_id", 4096);
    if (!text) return std::string();
    while (!text.value().empty() && text.value().back() == '\n') text.value().pop_back();
    return text.value();
  }();
  return id;
}

void notify_service_manager(const std::string& state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, std::strlen(path));
  if (path[0] == '@') address.sun_path[0] = '\0';
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  if (!fd) return;
  // Best effort by its nature: nobody may be listening.
  (void)::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address),
                 length);
}

}  // namespace gradfs
