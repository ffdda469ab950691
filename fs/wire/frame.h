// The frame: a fixed header of 64 bytes, a Protobuf message, then raw payload. Little-endian on the wire.
//
//   0 magic u32 "gfs1"   4 version u16   6 method u16    8 kind u8 (0 request, 1 response)  9 descriptors u8
//  10 status u16 (errc.def; responses)  12 deadline_ms u32 (requests: time left; 0: none)
//  16 request id u64    24 epoch u64 (of the master; 0: not from or about one)
//  32 message length u32  36 flags u32 (1: a retry)  40 client u64 (random, one life of a client)  48
//  reserved, zero 60 CRC-32 of bytes 0..59 u32
//
// `descriptors` file descriptors travel as SCM_RIGHTS with the first byte of the frame (Unix sockets only).
// A response whose status is not kOk carries the detail text in place of the message. A frame that is not
// valid closes its connection and nothing more.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fs/base/result.h"

namespace gradfs {

inline constexpr std::size_t kFrameHeaderBytes = 64;
inline constexpr std::uint32_t kFrameMagic = 0x31736667;  // "gfs1"
inline constexpr std::uint16_t kFrameVersion = 1;
inline constexpr std::uint32_t kMaxMessageBytes = 8u << 20;
inline constexpr std::uint8_t kMaxDescriptors = 4;

enum class FrameKind : std::uint8_t { kRequest = 0, kResponse = 1 };

struct FrameHeader {
  std::uint16_t method = 0;
  FrameKind kind = FrameKind::kRequest;
  std::uint8_t descriptors = 0;
  Errc status = Errc::kOk;
  std::uint32_t deadline_ms = 0;
  std::uint64_t request_id = 0;
  std::uint64_t epoch = 0;
  std::uint32_t message_length = 0;
  bool is_retry = false;  // the same (client, request id) was sent before and its answer did not come
  std::uint64_t client = 0;
};

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out);
// kCorrupt with the reason: magic, version, CRC, a length over kMaxMessageBytes, an unknown kind.
Result<FrameHeader> decode_frame_header(std::span<const std::byte, kFrameHeaderBytes> in);

}  // namespace gradfs
