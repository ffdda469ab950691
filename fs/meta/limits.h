// What the namespace holds at most.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradfs {

inline constexpr std::size_t kNameMax_bytes = 255;
inline constexpr std::size_t kSymlinkMax_bytes = 4095;
inline constexpr std::size_t kInlineMax_bytes = 1 << 20;
inline constexpr std::uint64_t kDirectorySize_bytes = 4096;
inline constexpr std::size_t kReadDirMax = 1024;  // entries in one answer
inline constexpr std::size_t kXattrNameMax_bytes = 255;
inline constexpr std::size_t kXattrValueMax_bytes = 64 << 10;
inline constexpr std::size_t kXattrsMax = 128;  // of one inode
inline constexpr std::size_t kPathDepthMax = 4096;
inline constexpr std::size_t kClientsMax = 256;         // RPC clients whose answers are kept
inline constexpr std::uint32_t kStepWorkersMax = 4096;  // (run, worker) pairs of a binding
inline constexpr std::size_t kStepNameMax_bytes = 255;
inline constexpr std::uint32_t kRejectedKept = 100;  // where a request does not say
inline constexpr std::uint64_t kIdsPerEntry = 16;    // ids that one entry may take
inline constexpr std::uint64_t kIdRange = 65536;
inline constexpr std::int64_t kAllocationMax_ns =
    std::int64_t{3600} * 1'000'000'000;  // without session and use

}  // namespace gradfs
