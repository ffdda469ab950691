#include "coproc/descent/safetensors.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "fs/base/fd.h"

namespace gradfs {
namespace {

// Parses a header over `data_bytes` of data.
Result<SafetensorsHeader> parse(const std::string& json, std::uint64_t data_bytes) {
  return parse_safetensors(json, 8 + json.size() + data_bytes);
}

TEST(Safetensors, ReadsWhatItWrites) {
  const std::vector<TensorEntry> tensors{{"b.weight", Dtype::kF32, {2, 3}, 0, 0},
                                         {"a", Dtype::kBF16, {5}, 0, 0},
                                         {"scalar", Dtype::kU8, {}, 0, 0},
                                         {"empty", Dtype::kF64, {0, 7}, 0, 0}};
  const auto text = format_safetensors(tensors, {{"format", "gradfs"}});
  ASSERT_TRUE(text);
  EXPECT_EQ(text.value().size() % 4096, 0U);
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  ASSERT_TRUE(write_fully_at(fd.get(), std::as_bytes(std::span(text.value())), 0));
  const std::string data(24 + 10 + 1, 'x');
  ASSERT_TRUE(write_fully_at(fd.get(), std::as_bytes(std::span(data)), text.value().size()));
  const auto header = read_safetensors(fd.get());
  ASSERT_TRUE(header) << header.error().message();
  const SafetensorsHeader& h = header.value();
  EXPECT_EQ(h.data_start, text.value().size());
  EXPECT_EQ(h.data_bytes, 35U);
  EXPECT_EQ(h.metadata.at("format"), "gradfs");
  ASSERT_EQ(h.tensors.size(), 4U);
  EXPECT_EQ(h.tensors[0].name, "b.weight");
  EXPECT_EQ(h.tensors[0].shape, (Shape{2, 3}));
  EXPECT_EQ(h.tensors[1].begin, 24U);
  EXPECT_EQ(h.tensors[1].dtype, Dtype::kBF16);
  EXPECT_EQ(h.tensors[2].count(), 1U);
  EXPECT_EQ(h.tensors[3].count(), 0U);
}

TEST(Safetensors, OrderIsThatOfTheData) {
  const auto header = parse(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},)"
                            R"("a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"}}   )",
                            8);
  ASSERT_TRUE(header) << header.error().message();
  EXPECT_EQ(header.value().tensors[0].name, "a");
  EXPECT_EQ(header.value().tensors[1].name, "b");
}

TEST(Safetensors, RefusesWhatIsNotExact) {
  struct Case {
    const char* json;
    std::uint64_t data;
    const char* why;
  };
  const Case cases[] = {
      {R"( {})", 0, "begin"},
      {R"([])", 0, "begin"},
      {"{}\n", 0, "end with"},
      {R"({)", 0, "end with"},
      {R"({"a":})", 0, "not JSON"},
      {R"({"a":1})", 0, "must not be a number"},
      {R"({"a":null})", 0, "null"},
      {R"({"a":[]})", 0, "must not be an array"},
      {R"({}})", 0, "not JSON"},
      {R"({})", 4, "has 4 bytes of data"},
      {R"({"__metadata__":{"a":1}})", 0, "must not be a number"},
      {R"({"__metadata__":{"a":{}}})", 0, "must not be an object"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       8, "twice"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "twice"},
      {R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4, "unknown dtype"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, "unknown key"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 0, "needs dtype"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "not whole"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "must not be an array"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "two numbers"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, "two numbers"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "needs 8"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "outside"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3, "outside"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "has 5 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "a hole"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "an overlap"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "64 bits"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0, "64 bits"},
      {"{\"a\xFF\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "not JSON"},
  };
  for (const Case& c : cases) {
    const auto header = parse(c.json, c.data);
    ASSERT_FALSE(header) << c.json;
    EXPECT_EQ(header.error().code, Errc::kInvalid);
    EXPECT_NE(header.error().detail.find(c.why), std::string::npos)
        << c.json << " -> " << header.error().detail;
    EXPECT_EQ(header.error().detail.find('\n'), std::string::npos);
  }
  EXPECT_FALSE(parse(std::string("{}\0", 3), 0));
  EXPECT_FALSE(parse(std::string("{}\0{}", 5), 0));
}

TEST(Safetensors, RefusesWrongLengths) {
  const auto read = [](const std::string& bytes) {
    UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
    EXPECT_TRUE(write_fully_at(fd.get(), std::as_bytes(std::span(bytes)), 0));
    return read_safetensors(fd.get());
  };
  EXPECT_FALSE(read(""));
  EXPECT_FALSE(read("1234567"));
  EXPECT_FALSE(read(std::string("\x02\0\0\0\0\0\0\0{", 9)));
  EXPECT_FALSE(read(std::string("\0\0\0\0\0\0\0\0", 8)));
  EXPECT_FALSE(read(std::string("\x02\0\0\0\0\0\0\x80{}", 10)));
  EXPECT_TRUE(read(std::string("\x02\0\0\0\0\0\0\0{}", 10)));
}

TEST(Safetensors, WriterRefusesTwins) {
  const std::vector<TensorEntry> twins{{"a", Dtype::kF32, {1}, 0, 0}, {"a", Dtype::kF32, {1}, 0, 0}};
  EXPECT_FALSE(format_safetensors(twins));
  const std::vector<TensorEntry> reserved{{"__metadata__", Dtype::kF32, {1}, 0, 0}};
  EXPECT_FALSE(format_safetensors(reserved));
}

}  // namespace
}  // namespace gradfs
