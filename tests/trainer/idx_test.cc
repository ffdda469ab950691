#include "trainer/idx.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "trainer/dataset.h"

namespace gradfs::trainer {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes idx(const std::vector<std::uint32_t>& shape, std::size_t data_bytes, std::uint8_t type = 8) {
  Bytes out = {0, 0, type, static_cast<std::uint8_t>(shape.size())};
  for (const std::uint32_t size : shape) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(size >> shift));
  }
  for (std::size_t i = 0; i < data_bytes; ++i) out.push_back(static_cast<std::uint8_t>(i % 10));
  return out;
}

std::string why(const Bytes& content) {
  const Result<IdxArray> parsed = parse_idx(std::as_bytes(std::span(content)));
  return parsed ? "" : parsed.error().message();
}

TEST(Idx, ReadsSizesAndData) {
  const Bytes content = idx({3, 2, 2}, 12);
  const Result<IdxArray> parsed = parse_idx(std::as_bytes(std::span(content)));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed.value().shape, (std::vector<std::uint32_t>{3, 2, 2}));
  EXPECT_EQ(parsed.value().rows(), 3u);
  EXPECT_EQ(parsed.value().row_bytes(), 4u);
  EXPECT_EQ(parsed.value().data[11], 1);
}

TEST(Idx, SaysWhatIsWrong) {
  EXPECT_EQ(why({0, 0}), "invalid: too short for an IDX file");
  EXPECT_EQ(why({0x1f, 0x8b, 8, 0}), "invalid: is compressed: gunzip it");
  EXPECT_EQ(why({1, 0, 8, 1}), "invalid: not an IDX file (wrong magic number)");
  EXPECT_EQ(why(idx({4}, 4, 0x0d)), "invalid: an IDX file, but not of unsigned bytes");
  EXPECT_EQ(why({0, 0, 8, 0}), "invalid: an IDX file with 0 dimensions");
  EXPECT_EQ(why({0, 0, 8, 9}), "invalid: an IDX file with 9 dimensions");
  EXPECT_EQ(why({0, 0, 8, 2, 0, 0, 0, 1}), "invalid: ends inside its header");
  EXPECT_EQ(why(idx({0}, 0)), "invalid: holds nothing (a size of 0)");
  EXPECT_EQ(why(idx({10}, 9)), "invalid: truncated: 9 of 10 bytes");
  EXPECT_EQ(why(idx({10}, 11)), "invalid: 1 bytes too long");
  const std::uint32_t most = 0xffffffff;
  EXPECT_EQ(why(idx({most, most, most, most}, 1)), "invalid: sizes beyond 4294967296 bytes");
}

class MnistFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "mnist-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    write("train-images-idx3-ubyte", idx({4, 2, 2}, 16));
    write("train-labels-idx1-ubyte", idx({4}, 4));
    write("t10k-images-idx3-ubyte", idx({2, 2, 2}, 8));
    write("t10k-labels-idx1-ubyte", idx({2}, 2));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void write(const std::string& name, const Bytes& content) {
    std::ofstream(directory_ + "/" + name, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  }
  std::string failure() {
    const Result<Dataset> loaded = load_dataset({.name = "mnist", .directory = directory_});
    return loaded ? "" : loaded.error().message();
  }

  std::string directory_;
};

TEST_F(MnistFiles, AreScaledToOne) {
  const Result<Dataset> loaded = load_dataset({.name = "mnist", .directory = directory_});
  ASSERT_TRUE(loaded);
  const Samples& train = *loaded.value().train;
  EXPECT_EQ(train.rows(), 4u);
  EXPECT_EQ(train.features(), 4u);
  EXPECT_EQ(train.classes(), 4u);
  const std::vector<std::uint32_t> rows = {3, 1};
  std::vector<float> features(8);
  std::vector<std::uint8_t> labels(2);
  ASSERT_TRUE(train.gather(rows, features, labels));
  EXPECT_EQ(labels, (std::vector<std::uint8_t>{3, 1}));
  EXPECT_FLOAT_EQ(features[0], 2.0f / 255.0f);
  EXPECT_FLOAT_EQ(features[4], 4.0f / 255.0f);
}

TEST_F(MnistFiles, MayHaveDotsInTheirNames) {
  std::filesystem::rename(directory_ + "/train-images-idx3-ubyte", directory_ + "/train-images.idx3-ubyte");
  EXPECT_EQ(failure(), "");
}

TEST_F(MnistFiles, MissingOneSaysHowToGetIt) {
  std::filesystem::remove(directory_ + "/t10k-labels-idx1-ubyte");
  EXPECT_NE(failure().find("t10k-labels-idx1-ubyte: tools/get-mnist --to " + directory_), std::string::npos);
}

TEST_F(MnistFiles, MustBelongTogether) {
  write("train-labels-idx1-ubyte", idx({3}, 3));
  EXPECT_NE(failure().find("4 images"), std::string::npos);
  EXPECT_NE(failure().find("3 labels"), std::string::npos);
  write("train-labels-idx1-ubyte", idx({2, 2}, 4));
  EXPECT_NE(failure().find("has 2 dimensions instead of 1"), std::string::npos);
  write("train-labels-idx1-ubyte", idx({4}, 4));
  write("t10k-images-idx3-ubyte", idx({2, 1, 2}, 4));
  EXPECT_NE(failure().find("differ in size (4 and 2 pixels)"), std::string::npos);
}

TEST_F(MnistFiles, ErrorsNameTheFile) {
  Bytes content = idx({4, 2, 2}, 16);
  content.resize(content.size() - 5);
  write("train-images-idx3-ubyte", content);
  EXPECT_EQ(failure(), "invalid: " + directory_ + "/train-images-idx3-ubyte: truncated: 11 of 16 bytes");
  content[0] = 1;
  write("train-images-idx3-ubyte", content);
  EXPECT_EQ(failure(),
            "invalid: " + directory_ + "/train-images-idx3-ubyte: not an IDX file (wrong magic number)");
  write("train-images-idx3-ubyte", {});
  EXPECT_EQ(failure(), "invalid: " + directory_ + "/train-images-idx3-ubyte: too short for an IDX file");
}

}  // namespace
}  // namespace gradfs::trainer
