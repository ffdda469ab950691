#include "tools/fsctl/model_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "coproc/descent/layout.h"

namespace gradfs::fsctl {
namespace {

UniqueFd memory_file() { return UniqueFd(::memfd_create("model", MFD_CLOEXEC)); }

std::string contents(const UniqueFd& fd) {
  struct stat info{};
  EXPECT_EQ(::fstat(fd.get(), &info), 0);
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  EXPECT_TRUE(read_fully_at(fd.get(), std::as_writable_bytes(std::span(text)), 0).has_value());
  return text;
}

std::string bytes_of(const ModelSource& source) {
  const UniqueFd fd = memory_file();
  EXPECT_TRUE(source.write_all(fd.get()).has_value());
  return contents(fd);
}

std::vector<float> tensor_of(const ModelSource& source, const std::string& bytes, std::size_t index) {
  const TensorEntry& tensor = source.tensors()[index];
  std::vector<float> values(tensor.count());
  std::memcpy(values.data(), bytes.data() + source.header().size() + tensor.begin, tensor.end - tensor.begin);
  return values;
}

std::string path_of(const UniqueFd& fd) { return "/proc/self/fd/" + std::to_string(fd.get()); }

UniqueFd file_with(const std::vector<TensorEntry>& tensors, const Metadata& metadata,
                   const std::string& data) {
  UniqueFd fd = memory_file();
  const std::string header = format_safetensors(tensors, metadata, 8).value();
  EXPECT_TRUE(write_fully_at(fd.get(), std::as_bytes(std::span(header)), 0).has_value());
  EXPECT_TRUE(write_fully_at(fd.get(), std::as_bytes(std::span(data)), header.size()).has_value());
  return fd;
}

TEST(ParseLayers, TakesWidths) {
  EXPECT_EQ(parse_layers("784,1024,10").value(), (std::vector<std::uint64_t>{784, 1024, 10}));
  EXPECT_EQ(parse_layers("1,1").value(), (std::vector<std::uint64_t>{1, 1}));
}

TEST(ParseLayers, RefusesWithAnExample) {
  for (const char* text : {"", "784", "784,", ",784", "784,,10", "784,0", "784,-1", "784,ten", "784 10",
                           "784, 10", "1,99999999999999999999", "7.5,1"}) {
    const auto result = parse_layers(text);
    ASSERT_FALSE(result.has_value()) << text;
    EXPECT_EQ(result.error().code, Errc::kInvalid);
    EXPECT_NE(result.error().detail.find("784,1024,10"), std::string::npos);
  }
}

TEST(LayersSource, HasTheTensorsOfLinearLayers) {
  const auto source = layers_source({784, 1024, 1024, 10}, 1).value();
  EXPECT_EQ(source->parameters(), 1'863'690U);
  ASSERT_EQ(source->tensors().size(), 6U);
  EXPECT_EQ(source->tensors()[0].name, "fc1.weight");
  EXPECT_EQ(source->tensors()[0].shape, (Shape{1024, 784}));
  EXPECT_EQ(source->tensors()[5].name, "fc3.bias");
  EXPECT_EQ(source->tensors()[5].shape, (Shape{10}));
  EXPECT_EQ(source->header().size() % kSafetensorsAlignment, 0U);
}

TEST(LayersSource, MakesAFileThatDescentTakes) {
  const auto source = layers_source({5, 7, 3}, 9).value();
  const UniqueFd fd = memory_file();
  ASSERT_TRUE(source->write_all(fd.get()).has_value());
  const auto layout = ModelLayout::read(fd.get());
  ASSERT_TRUE(layout.has_value());
  EXPECT_EQ(layout.value().parameters(), 5U * 7 + 7 + 7 * 3 + 3);
  EXPECT_EQ(layout.value().file_bytes(), source->file_bytes());
}

TEST(LayersSource, TheSameSeedGivesTheSameBytes) {
  const std::string first = bytes_of(*layers_source({600, 500, 10}, 42).value());
  EXPECT_EQ(first, bytes_of(*layers_source({600, 500, 10}, 42).value()));
  EXPECT_NE(first, bytes_of(*layers_source({600, 500, 10}, 43).value()));
}

TEST(LayersSource, ValuesAreUniformWithinTheBound) {
  const auto source = layers_source({400, 900}, 7).value();
  const std::string bytes = bytes_of(*source);
  const auto weights = tensor_of(*source, bytes, 0);
  const auto bias = tensor_of(*source, bytes, 1);
  const double bound = 1.0 / 20;
  double sum = 0;
  double squares = 0;
  for (const float value : weights) {
    ASSERT_LE(std::abs(value), bound);
    sum += value;
    squares += double{value} * value;
  }
  const auto count = static_cast<double>(weights.size());
  EXPECT_NEAR(sum / count, 0, 5 * bound / std::sqrt(3 * count));
  EXPECT_NEAR(squares / count, bound * bound / 3, 0.01 * bound * bound);
  for (const float value : bias) ASSERT_LE(std::abs(value), bound);
  EXPECT_NE(bias[0], weights[0]);
}

TEST(FileSource, KeepsOrderMetadataAndBits) {
  std::string data(4 * 7, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 37);
  const std::vector<TensorEntry> tensors{{.name = "z", .shape = {2, 3}}, {.name = "a", .shape = {}}};
  const UniqueFd fd = file_with(tensors, {{"by", "someone"}}, data);
  const auto source = file_source(path_of(fd));
  ASSERT_TRUE(source.has_value()) << source.error().detail;
  ASSERT_EQ(source.value()->tensors().size(), 2U);
  EXPECT_EQ(source.value()->tensors()[0].name, "z");
  EXPECT_EQ(source.value()->tensors()[1].shape, Shape{});
  const std::string bytes = bytes_of(*source.value());
  EXPECT_EQ(bytes.substr(source.value()->header().size()), data);
  EXPECT_NE(bytes.find("\"by\":\"someone\""), std::string::npos);
  EXPECT_EQ(source.value()->header().size() % kSafetensorsAlignment, 0U);
}

TEST(FileSource, OtherTypesAreRefusedByName) {
  const UniqueFd fd = file_with({{.name = "half", .dtype = Dtype::kF16, .shape = {2}}}, {}, "abcd");
  const auto source = file_source(path_of(fd));
  ASSERT_FALSE(source.has_value());
  EXPECT_EQ(source.error().code, Errc::kInvalid);
  EXPECT_NE(source.error().detail.find("half"), std::string::npos);
  EXPECT_NE(source.error().detail.find("F16"), std::string::npos);
}

TEST(FileSource, WhatIsNoModelIsRefused) {
  EXPECT_EQ(file_source("/no/such/file").error().code, Errc::kNotFound);
  EXPECT_FALSE(file_source("/dev/null").has_value());
  const UniqueFd empty = file_with({}, {}, "");
  EXPECT_FALSE(file_source(path_of(empty)).has_value());
}

}  // namespace
}  // namespace gradfs::fsctl
