// What the real disks share: flags, and the calls that no ring takes. Only fs/io includes it.
#pragma once

#include "fs/base/fd.h"
#include "fs/io/disk.h"

namespace gradfs::io {

// The flags of open(2) for the options, with O_CLOEXEC.
int open_flags(const OpenOptions& options);
Result<std::uint64_t> size_of(const UniqueFd& fd);
Result<std::vector<std::string>> list_names(const std::string& directory);

inline constexpr unsigned kFileMode = 0600;
inline constexpr unsigned kDirectoryMode = 0700;
// One read or write asks for no more than this; longer ones go on.
inline constexpr std::size_t kTransferBytes = std::size_t{1} << 30;

}  // namespace gradfs::io
