#include "fs/wire/frame.h"

#include <bit>
#include <boost/crc.hpp>
#include <cstring>

namespace gradfs {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are copied as they lie in memory");

template <class T>
void put(std::span<std::byte> out, std::size_t offset, T value) {
  std::memcpy(out.data() + offset, &value, sizeof value);
}

template <class T>
T get(std::span<const std::byte> in, std::size_t offset) {
  T value;
  std::memcpy(&value, in.data() + offset, sizeof value);
  return value;
}

std::uint32_t header_crc(std::span<const std::byte> bytes) {
  boost::crc_32_type crc;
  crc.process_bytes(bytes.data(), kFrameHeaderBytes - 4);
  return crc.checksum();
}

}  // namespace

void encode_frame_header(const FrameHeader& header, std::span<std::byte, kFrameHeaderBytes> out) {
  std::memset(out.data(), 0, out.size());
  put(out, 0, kFrameMagic);
  put(out, 4, kFrameVersion);
  put(out, 6, header.method);
  put(out, 8, static_cast<std::uint8_t>(header.kind));
  put(out, 9, header.descriptors);
  put(out, 10, static_cast<std::uint16_t>(header.status));
  put(out, 12, header.deadline_ms);
  put(out, 16, header.request_id);
  put(out, 24, header.epoch);
  put(out, 32, header.message_length);
  put(out, 36, static_cast<std::uint32_t>(header.is_retry ? 1 : 0));
  put(out, 40, header.client);
  put(out, 60, header_crc(out));
}

Result<FrameHeader> decode_frame_header(std::span<const std::byte, kFrameHeaderBytes> in) {
  if (get<std::uint32_t>(in, 0) != kFrameMagic) return Error(Errc::kCorrupt, "frame: wrong magic");
  if (get<std::uint16_t>(in, 4) != kFrameVersion) return Error(Errc::kCorrupt, "frame: unknown version");
  if (get<std::uint32_t>(in, 60) != header_crc(in)) return Error(Errc::kCorrupt, "frame: wrong checksum");
  FrameHeader header;
  header.method = get<std::uint16_t>(in, 6);
  const auto kind = get<std::uint8_t>(in, 8);
  if (kind > 1) return Error(Errc::kCorrupt, "frame: unknown kind");
  header.kind = static_cast<FrameKind>(kind);
  header.descriptors = get<std::uint8_t>(in, 9);
  if (header.descriptors > kMaxDescriptors) return Error(Errc::kCorrupt, "frame: too many descriptors");
  header.status = from_wire(get<std::uint16_t>(in, 10));
  header.deadline_ms = get<std::uint32_t>(in, 12);
  header.request_id = get<std::uint64_t>(in, 16);
  header.epoch = get<std::uint64_t>(in, 24);
  header.message_length = get<std::uint32_t>(in, 32);
  header.is_retry = (get<std::uint32_t>(in, 36) & 1) != 0;
  header.client = get<std::uint64_t>(in, 40);
  if (header.message_length > kMaxMessageBytes) return Error(Errc::kCorrupt, "frame: message too long");
  return header;
}

}  // namespace gradfs
