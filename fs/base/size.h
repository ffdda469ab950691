// Sizes as people write them: 4GiB, 512MiB, 4G (binary, too), 1000000.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace gradfs {

// Bytes. kInvalid for anything else, zero, or more than 2^63.
Result<std::uint64_t> parse_size(std::string_view text);
// "1.5 GiB"; below 1 KiB "512 B".
std::string format_size(std::uint64_t bytes);

}  // namespace gradfs
