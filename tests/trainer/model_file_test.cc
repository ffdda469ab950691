#include "trainer/model_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/trainer/model_directory.h"

namespace gradfs::trainer {
namespace {

using nlohmann::json;

json tensor(const std::vector<std::uint64_t>& shape, std::uint64_t begin, std::uint64_t end) {
  return {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

Result<ModelLayout> parse(const json& header, std::uint64_t data_bytes) {
  return parse_model_header(header.dump(), 4096, 4096 + data_bytes);
}

std::string why(const json& header, std::uint64_t data_bytes) {
  const Result<ModelLayout> layout = parse(header, data_bytes);
  if (!layout) return layout.error().detail;
  const Result<std::vector<DenseLayer>> layers = deduce_layers(layout.value());
  return layers ? "" : layers.error().detail;
}

TEST(ModelFile, ReadsItsDirectory) {
  const ModelDirectory directory({6, 5, 3});
  const Result<ModelFile> model = ModelFile::open(directory.path());
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ(model.value().layout().data_start, 4096u);
  ASSERT_EQ(model.value().parameters().size(), 6u * 5 + 5 + 5 * 3 + 3);
  std::vector<float> expected(model.value().parameters().size());
  initialise(chain({6, 5, 3}), 1, expected.data());
  EXPECT_TRUE(std::ranges::equal(model.value().parameters(), expected));
  EXPECT_EQ(model.value().version(), std::nullopt);
  EXPECT_EQ(model.value().version_or_status(), 42u);
  EXPECT_EQ(model.value().optimizer_or_status(), "adam");
  const std::vector<DenseLayer> layers = deduce_layers(model.value().layout()).value();
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[1].inputs, 5u);
  EXPECT_EQ(layers[1].outputs, 3u);
  EXPECT_EQ(layers[1].weight_offset, 35u);
  EXPECT_EQ(layers[1].bias_offset, 50u);
}

TEST(ModelFile, MissingOneSaysWhatMakesIt) {
  const Result<ModelFile> model = ModelFile::open("/nonexistent");
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().message().find("fsctl model create"), std::string::npos);
}

TEST(ModelFile, RefusesWhatIsNoModel) {
  const ModelDirectory directory({2, 2});
  directory.write_model("{}", "");
  EXPECT_NE(ModelFile::open(directory.path()).error().message().find("it has no tensors"), std::string::npos);
  directory.write_model("not json", "data");
  EXPECT_NE(ModelFile::open(directory.path()).error().message().find("cannot be read"), std::string::npos);
  std::ofstream(directory.path() + "/model.safetensors", std::ios::trunc) << std::string(64, '\xff');
  EXPECT_NE(ModelFile::open(directory.path()).error().message().find("not a safetensors file"),
            std::string::npos);
  std::ofstream(directory.path() + "/model.safetensors", std::ios::trunc) << "abc";
  EXPECT_NE(ModelFile::open(directory.path()).error().message().find("too short"), std::string::npos);
}

TEST(ModelFile, RefusesStrangeTensors) {
  EXPECT_EQ(why({{"a", tensor({2}, 0, 12)}}, 12), "tensor a has strange offsets");
  EXPECT_EQ(why({{"a", tensor({2}, 2, 10)}}, 10), "tensor a has strange offsets");
  EXPECT_EQ(why({{"a", tensor({0}, 0, 0)}}, 0), "tensor a has a strange shape");
  EXPECT_EQ(why({{"a", tensor({1u << 30, 1u << 30}, 0, 8)}}, 8), "tensor a has a strange shape");
  EXPECT_EQ(why({{"a", tensor({2}, 0, 8)}, {"b", tensor({2}, 4, 12)}}, 12),
            "its tensors leave a hole or overlap at b");
  EXPECT_EQ(why({{"a", tensor({2}, 4, 12)}}, 12), "its tensors leave a hole or overlap at a");
  EXPECT_EQ(why({{"a", tensor({2}, 0, 8)}}, 12), "its size is not what its header says");
  json half = {{"a", tensor({2}, 0, 8)}};
  half["a"]["dtype"] = "F16";
  EXPECT_EQ(why(half, 8), "tensor a is not F32");
  EXPECT_EQ(why({{"a", 7}}, 8), "its header cannot be read as safetensors");
}

TEST(ModelFile, OrdersLayersByNumber) {
  // Torch writes tensors by name: the bias first, and layer 10 before layer 9.
  const json header = {{"net.10.bias", tensor({2}, 0, 8)},
                       {"net.10.weight", tensor({2, 3}, 8, 32)},
                       {"net.9.bias", tensor({3}, 32, 44)},
                       {"net.9.weight", tensor({3, 4}, 44, 92)}};
  const std::vector<DenseLayer> layers = deduce_layers(parse(header, 92).value()).value();
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].inputs, 4u);
  EXPECT_EQ(layers[0].weight_offset, 11u);
  EXPECT_EQ(layers[1].outputs, 2u);
  EXPECT_EQ(layers[1].bias_offset, 0u);
}

TEST(ModelFile, KnowsOnlyFullyConnectedLayers) {
  EXPECT_EQ(why({{"conv.weight", tensor({1, 1, 2}, 0, 8)}, {"conv.bias", tensor({1}, 8, 12)}}, 12),
            "tensor conv.weight is not that of a fully connected layer");
  EXPECT_EQ(why({{"fc1.weight", tensor({1, 2}, 0, 8)}}, 8), "there is fc1.weight, but no fc1.bias");
  EXPECT_EQ(why({{"fc1.weight", tensor({1, 2}, 0, 8)}, {"fc1.bias", tensor({2}, 8, 16)}}, 16),
            "fc1.bias does not fit fc1.weight");
  EXPECT_EQ(why({{"scale", tensor({2}, 0, 8)}}, 8), "tensor scale is not that of a fully connected layer");
  EXPECT_EQ(why({{"fc1.bias", tensor({1}, 0, 4)},
                 {"fc1.weight", tensor({1, 2}, 4, 12)},
                 {"fc2.bias", tensor({1}, 12, 16)},
                 {"fc2.weight", tensor({1, 3}, 16, 28)}},
                28),
            "layer fc2 takes 3 values, the one before gives 1");
}

TEST(GradientHeader, IsAValidSafetensorsHeaderOfTheModel) {
  const ModelDirectory directory({6, 5, 3});
  const ModelFile model = std::move(ModelFile::open(directory.path()).value());
  const GradientHeader header(model.layout(), "run \"1\"", "w0");
  const std::string text = header.render(7, 41, 0.25);
  ASSERT_EQ(text.size(), header.bytes());
  std::uint64_t length = 0;
  std::memcpy(&length, text.data(), sizeof length);
  EXPECT_EQ(length + 8, header.bytes());
  EXPECT_EQ(text[8], '{');
  const json parsed = json::parse(text.substr(8));
  EXPECT_EQ(
      parsed["__metadata__"],
      (json{
          {"run", "run \"1\""}, {"worker", "w0"}, {"step", "7"}, {"base_version", "41"}, {"loss", "0.25"}}));
  const Result<ModelLayout> layout = parse_model_header(text.substr(8), header.bytes(), header.file_bytes());
  ASSERT_TRUE(layout) << layout.error().message();
  ASSERT_EQ(layout.value().tensors.size(), model.layout().tensors.size());
  for (std::size_t i = 0; i < layout.value().tensors.size(); ++i) {
    EXPECT_EQ(layout.value().tensors[i].name, model.layout().tensors[i].name);
    EXPECT_EQ(layout.value().tensors[i].shape, model.layout().tensors[i].shape);
    EXPECT_EQ(layout.value().tensors[i].offset, model.layout().tensors[i].offset);
  }
}

TEST(GradientHeader, HasOneLengthForAllSteps) {
  const ModelDirectory directory({6, 5, 3});
  const ModelFile model = std::move(ModelFile::open(directory.path()).value());
  const GradientHeader header(model.layout(), "r", "w0");
  EXPECT_EQ(header.bytes() % kHeaderAlignment, 0u);
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(header.render(0, std::nullopt, 0).size(), header.bytes());
  EXPECT_EQ(header.render(most, most, -1.23456789e-300).size(), header.bytes());
  // A loss that is no number is left out: the header stays valid.
  const json parsed = json::parse(header.render(1, std::nullopt, std::nan("")).substr(8));
  EXPECT_EQ(parsed["__metadata__"], (json{{"run", "r"}, {"worker", "w0"}, {"step", "1"}}));
}

TEST(GradientHeader, GrowsWithTheModel) {
  ModelLayout layout;
  for (std::uint64_t i = 0; i < 100; ++i) layout.tensors.push_back({"tensor" + std::to_string(i), {1}, i, 1});
  const GradientHeader header(layout, "r", "w0");
  EXPECT_GE(header.bytes(), 2 * kHeaderAlignment);
  EXPECT_EQ(header.bytes() % kHeaderAlignment, 0u);
}

}  // namespace
}  // namespace gradfs::trainer
