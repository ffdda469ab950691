// What the main() of every program shares.
#pragma once

#include <string>

#include "fs/base/result.h"

namespace gradfs {

// "PROGRAM: MESSAGE" as one line on stderr. Returns 1, the exit status.
int print_error(const std::string& program, const Error& error);

// "ADDR:PORT" names this host only (127.0.0.0/8, [::1], localhost).
bool is_loopback(const std::string& address);

// DIRECTORY/NAME, or, where that is longer than a Unix socket's path may be, a name in /tmp made from its
// hash.
std::string socket_path(const std::string& directory, const std::string& name);

// As many descriptors as the system lets this process have: an open file is a descriptor of its image.
void raise_descriptor_limit();

}  // namespace gradfs
