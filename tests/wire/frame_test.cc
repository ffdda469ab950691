#include "fs/wire/frame.h"

#include <gtest/gtest.h>

#include <boost/crc.hpp>
#include <cstring>

#include "fs/wire/methods.h"

namespace gradfs {
namespace {

using Bytes = std::array<std::byte, kFrameHeaderBytes>;

FrameHeader sample() {
  FrameHeader header;
  header.method = 111;
  header.kind = FrameKind::kResponse;
  header.descriptors = 3;
  header.status = Errc::kNotFinite;
  header.deadline_ms = 0xdeadbeef;
  header.request_id = 0x0123456789abcdef;
  header.epoch = 0xfedcba9876543210;
  header.message_length = kMaxMessageBytes;
  header.is_retry = true;
  header.client = 0x1122334455667788;
  return header;
}

Bytes encoded(const FrameHeader& header) {
  Bytes bytes{};
  encode_frame_header(header, bytes);
  return bytes;
}

// Writes a value into the bytes and makes the checksum right again.
template <class T>
Bytes with(Bytes bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  boost::crc_32_type crc;
  crc.process_bytes(bytes.data(), kFrameHeaderBytes - 4);
  const std::uint32_t sum = crc.checksum();
  std::memcpy(bytes.data() + 60, &sum, sizeof sum);
  return bytes;
}

void expect_refused(const Bytes& bytes, const std::string& why) {
  auto header = decode_frame_header(bytes);
  ASSERT_FALSE(header) << why;
  EXPECT_EQ(header.error().code, Errc::kCorrupt);
  EXPECT_NE(header.error().detail.find(why), std::string::npos) << header.error().detail;
}

TEST(Frame, RoundTripsEveryField) {
  const FrameHeader in = sample();
  auto decoded = decode_frame_header(encoded(in));
  ASSERT_TRUE(decoded) << decoded.error().message();
  const FrameHeader& out = decoded.value();
  EXPECT_EQ(out.method, in.method);
  EXPECT_EQ(out.kind, in.kind);
  EXPECT_EQ(out.descriptors, in.descriptors);
  EXPECT_EQ(out.status, in.status);
  EXPECT_EQ(out.deadline_ms, in.deadline_ms);
  EXPECT_EQ(out.request_id, in.request_id);
  EXPECT_EQ(out.epoch, in.epoch);
  EXPECT_EQ(out.message_length, in.message_length);
  EXPECT_EQ(out.is_retry, in.is_retry);
  EXPECT_EQ(out.client, in.client);
}

// The layout is a protocol: these bytes never change.
TEST(Frame, HasTheDocumentedLayout) {
  const Bytes bytes = encoded(sample());
  const auto at = [&bytes](std::size_t offset) { return std::to_integer<int>(bytes[offset]); };
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 4), "gfs1");
  EXPECT_EQ(at(4), 1);
  EXPECT_EQ(at(6), 111);
  EXPECT_EQ(at(8), 1);
  EXPECT_EQ(at(9), 3);
  EXPECT_EQ(at(10), 14);
  EXPECT_EQ(at(12), 0xef);
  EXPECT_EQ(at(16), 0xef);
  EXPECT_EQ(at(24), 0x10);
  EXPECT_EQ(at(34), 0x80);
  EXPECT_EQ(at(36), 1);
  EXPECT_EQ(at(40), 0x88);
  for (std::size_t i = 48; i < 60; ++i) EXPECT_EQ(at(i), 0);
}

TEST(Frame, RefusesEveryFieldThatIsWrong) {
  const Bytes good = encoded(sample());
  EXPECT_TRUE(decode_frame_header(with(good, 6, std::uint16_t{7})));
  expect_refused(with(good, 0, std::uint32_t{0x32736667}), "magic");
  expect_refused(with(good, 4, std::uint16_t{2}), "version");
  expect_refused(with(good, 8, std::uint8_t{2}), "kind");
  expect_refused(with(good, 9, std::uint8_t{kMaxDescriptors + 1}), "descriptors");
  expect_refused(with(good, 32, std::uint32_t{kMaxMessageBytes + 1}), "too long");
  expect_refused(Bytes{}, "magic");
}

TEST(Frame, AnyFlippedBitIsSeen) {
  const Bytes good = encoded(sample());
  for (std::size_t bit = 0; bit < kFrameHeaderBytes * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(decode_frame_header(bad)) << "bit " << bit;
  }
}

TEST(Frame, AnUnknownStatusIsAnInputOutputError) {
  auto header = decode_frame_header(with(encoded(sample()), 10, std::uint16_t{60'000}));
  ASSERT_TRUE(header);
  EXPECT_EQ(header.value().status, Errc::kIo);
}

TEST(Methods, HaveNames) {
  EXPECT_EQ(rpc::method_name(rpc::Push::kNumber), "Push");
  EXPECT_EQ(rpc::method_name(999), "?");
}

}  // namespace
}  // namespace gradfs
