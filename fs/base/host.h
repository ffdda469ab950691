// Which host this is, and how a server tells systemd that it is ready.
#pragma once

#include <string>

namespace gradfs {

// The kernel's boot id: the same for all processes of a running host, in whatever namespaces. "" if
// unreadable.
const std::string& host_id();

// sd_notify(3) without its library: sends `state` ("READY=1") to $NOTIFY_SOCKET, if there is one.
void notify_service_manager(const std::string& state);

}  // namespace gradfs
