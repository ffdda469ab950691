// Data sets that are generated, and those that people bring.
#include "trainer/dataset.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "fs/base/check.h"
#include "trainer/synthetic.h"
#include "trainer/usage.h"

namespace gradfs::trainer {
namespace {

struct Row {
  std::vector<float> features;
  std::uint8_t label = 0;
  bool operator==(const Row&) const = default;
};

Row row_of(const Samples& samples, std::uint32_t number) {
  Row row{std::vector<float>(samples.features()), 0};
  const Result<void> gathered = samples.gather(std::span(&number, 1), row.features, std::span(&row.label, 1));
  GRADFS_CHECK(gathered.has_value());
  return row;
}

Dataset generate(const std::string& name, std::uint64_t rows, std::uint64_t seed) {
  return std::move(load_dataset({.name = name, .directory = "", .rows = rows, .seed = seed}).value());
}

TEST(Synthetic, ShapesAreThoseOfTheTalk) {
  const Dataset higgs = generate("higgs", 0, 1);
  EXPECT_EQ(higgs.train->features(), 28u);
  EXPECT_EQ(higgs.train->classes(), 2u);
  EXPECT_EQ(higgs.train->rows(), 200'000u);
  EXPECT_EQ(higgs.test->rows(), 2'000u);
  const Dataset molecular = generate("molecular", 10, 1);
  EXPECT_EQ(molecular.train->features(), 2871u);
  EXPECT_EQ(molecular.train->classes(), 15u);
}

TEST(Synthetic, RowsFollowFromTheSeed) {
  for (const char* name : {"higgs", "molecular"}) {
    const Dataset one = generate(name, 100, 1);
    const Dataset same = generate(name, 1'000'000, 1);
    const Dataset other = generate(name, 100, 2);
    EXPECT_EQ(row_of(*one.train, 77), row_of(*same.train, 77)) << name;
    EXPECT_NE(row_of(*one.train, 77), row_of(*other.train, 77)) << name;
    EXPECT_NE(row_of(*one.train, 77), row_of(*one.test, 77)) << name << ": training rows are tested";
    EXPECT_NE(row_of(*one.train, 77), row_of(*one.train, 78)) << name;
  }
}

TEST(Synthetic, RowsAreTheSameInAnyBatch) {
  const Dataset data = generate("molecular", 1000, 1);
  const std::vector<std::uint32_t> numbers = {999, 3, 500};
  std::vector<float> features(3 * data.train->features());
  std::vector<std::uint8_t> labels(3);
  ASSERT_TRUE(data.train->gather(numbers, features, labels));
  for (std::size_t i = 0; i < 3; ++i) {
    const Row row = row_of(*data.train, numbers[i]);
    EXPECT_EQ(labels[i], row.label);
    EXPECT_TRUE(std::equal(row.features.begin(), row.features.end(),
                           features.begin() + static_cast<std::ptrdiff_t>(i * row.features.size())));
  }
}

TEST(Synthetic, FeaturesHaveMeanZeroAndVarianceOne) {
  for (const char* name : {"higgs", "molecular"}) {
    const Dataset data = generate(name, 500, 3);
    double sum = 0;
    double squares = 0;
    double count = 0;
    for (std::uint32_t i = 0; i < 500; ++i) {
      for (const float value : row_of(*data.train, i).features) {
        sum += static_cast<double>(value);
        squares += static_cast<double>(value) * static_cast<double>(value);
        ++count;
      }
    }
    EXPECT_NEAR(sum / count, 0, 0.06) << name;
    EXPECT_NEAR(squares / count, 1, 0.08) << name;
  }
}

// The class whose mean is nearest is right more often than chance, and far less often than the function.
TEST(Synthetic, AreNeitherChanceNorTrivial) {
  const Dataset data = generate("higgs", 4000, 1);
  std::vector<std::vector<double>> means(2, std::vector<double>(28));
  std::vector<double> counts(2);
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const Row row = row_of(*data.train, i);
    counts[row.label] += 1;
    for (std::size_t j = 0; j < 28; ++j) means[row.label][j] += static_cast<double>(row.features[j]);
  }
  EXPECT_GT(counts[0], 0.3 * 4000);
  EXPECT_GT(counts[1], 0.3 * 4000);
  std::size_t right = 0;
  for (std::uint32_t i = 0; i < 2000; ++i) {
    const Row row = row_of(*data.test, i);
    const auto distance = [&](std::size_t c) {
      double sum = 0;
      for (std::size_t j = 0; j < 28; ++j) {
        sum += std::pow(static_cast<double>(row.features[j]) - means[c][j] / counts[c], 2);
      }
      return sum;
    };
    right += (distance(0) < distance(1) ? 0u : 1u) == row.label ? 1 : 0;
  }
  EXPECT_GT(right, 0.6 * 2000);
  EXPECT_LT(right, 0.92 * 2000);
}

TEST(Synthetic, TenMillionRowsTakeNoMemory) {
  const std::uint64_t before = proportional_bytes(::getpid()).value();
  const Dataset data = generate("higgs", 10'000'000, 1);
  EXPECT_EQ(data.train->rows(), 10'000'000u);
  EXPECT_EQ(row_of(*data.train, 9'999'999).features.size(), 28u);
  EXPECT_LT(proportional_bytes(::getpid()).value(), before + (8 << 20));
}

class Files : public testing::Test {
 protected:
  Files() {
    std::string pattern = std::filesystem::temp_directory_path() / "gradfs-data-XXXXXX";
    GRADFS_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Files() override { std::filesystem::remove_all(path_); }

  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << content;
  }
  [[nodiscard]] std::string error_of(const std::string& kind, const std::string& label = "") const {
    const Result<Dataset> loaded = load_dataset({.name = kind, .directory = path_, .label = label});
    EXPECT_FALSE(loaded);
    if (loaded) return "";
    EXPECT_EQ(loaded.error().message().find('\n'), std::string::npos);
    return loaded.error().message();
  }
  [[nodiscard]] Dataset load(const std::string& kind, const std::string& label = "") const {
    Result<Dataset> loaded = load_dataset({.name = kind, .directory = path_, .label = label});
    EXPECT_TRUE(loaded) << loaded.error().message();
    GRADFS_CHECK(loaded.has_value());
    return std::move(loaded.value());
  }

  std::string path_;
};

class Csv : public Files {};

TEST_F(Csv, FirstColumnIsTheLabelWithoutAHeader) {
  write("train.csv", "1,0.5,-2\n0,1e3,+4\n2,nan,inf\n");
  write("test.csv", "1,7,8\n");
  const Dataset data = load("csv");
  EXPECT_EQ(data.train->rows(), 3u);
  EXPECT_EQ(data.train->features(), 2u);
  EXPECT_EQ(data.train->classes(), 3u);
  EXPECT_EQ(row_of(*data.train, 0), (Row{{0.5F, -2.0F}, 1}));
  EXPECT_EQ(row_of(*data.train, 1), (Row{{1000.0F, 4.0F}, 0}));
  EXPECT_TRUE(std::isnan(row_of(*data.train, 2).features[0]));
  EXPECT_TRUE(std::isinf(row_of(*data.train, 2).features[1]));
  EXPECT_EQ(row_of(*data.test, 0), (Row{{7.0F, 8.0F}, 1}));
}

TEST_F(Csv, AHeaderNamesTheLabel) {
  write("train.csv", "a;label;b\r\n1 ;3; \"2\"\r\n4;5;6\r\n\r\n");
  write("test.csv", "a;label;b\r\n1;0;2\r\n");
  EXPECT_EQ(row_of(*load("csv").train, 0), (Row{{1.0F, 2.0F}, 3}));
  EXPECT_EQ(row_of(*load("csv", "b").train, 1), (Row{{4.0F, 5.0F}, 6}));
  EXPECT_EQ(row_of(*load("csv", "0").train, 1), (Row{{5.0F, 6.0F}, 4}));
  EXPECT_NE(error_of("csv", "c").find("train.csv line 1: no column 'c' for the label"), std::string::npos);
  EXPECT_NE(error_of("csv", "3").find("no column '3'"), std::string::npos);
}

TEST_F(Csv, WithoutATestEachTenthRowIsForTesting) {
  std::string text;
  for (int i = 0; i < 25; ++i) text += "0," + std::to_string(i) + "\n";
  write("train.csv", text);
  const Dataset data = load("csv");
  EXPECT_EQ(data.train->rows(), 23u);
  EXPECT_EQ(data.test->rows(), 2u);
  EXPECT_EQ(row_of(*data.test, 0).features[0], 9.0F);
  EXPECT_EQ(row_of(*data.test, 1).features[0], 19.0F);
  std::vector<float> seen;
  for (std::uint32_t i = 0; i < 23; ++i) seen.push_back(row_of(*data.train, i).features[0]);
  std::vector<float> expected;
  for (int i = 0; i < 25; ++i) {
    if (i % 10 != 9) expected.push_back(static_cast<float>(i));
  }
  EXPECT_EQ(seen, expected);
  const Result<Dataset> file = load_dataset({.name = "csv", .directory = path_ + "/train.csv"});
  ASSERT_TRUE(file);
  EXPECT_EQ(file.value().test->rows(), 2u);
}

TEST_F(Csv, ErrorsNameFileAndLine) {
  EXPECT_NE(error_of("csv").find("train.csv"), std::string::npos);
  const std::pair<const char*, const char*> wrong[] = {
      {"1,2,3\n1,2\n", "train.csv line 2: 2 values, the lines before have 3"},
      {"1,2,3\n1,2,3,4\n", "train.csv line 2: 4 values"},
      {"1,2\n1,x\n", "train.csv line 2: 'x' is not a number"},
      {"1,2\n1,\n", "train.csv line 2: '' is not a number"},
      {"1,2\n1.5,2\n", "train.csv line 2: the label 1.5 is not a whole number from 0 to 255"},
      {"1,2\n256,2\n", "the label 256 is not"},
      {"1,2\nnan,2\n", "the label nan is not"},
      {"5\n", "train.csv line 1: a row is a label and at least one value"},
      {"", "there are no rows"},
      {"label,x\n", "there are no rows"},
      {"1,2\n1,2\n", "fewer than ten rows"},
  };
  for (const auto& [content, text] : wrong) {
    write("train.csv", content);
    EXPECT_NE(error_of("csv").find(text), std::string::npos) << content << ": " << error_of("csv");
  }
  write("train.csv", "1,2,3\n");
  write("test.csv", "1,2\n");
  EXPECT_NE(error_of("csv").find("test.csv has 2 columns"), std::string::npos);
}

class Npy : public Files {
 protected:
  // A .npy file of version 1.0.
  static std::string npy(const std::string& descr, const std::string& shape, const std::string& data,
                         const std::string& order = "False") {
    std::string header =
        "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': (" + shape + "), }";
    header.resize((header.size() + 10 + 64) / 64 * 64 - 10 - 1, ' ');
    header += '\n';
    return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size() & 255) +
           static_cast<char>(header.size() >> 8) + header + data;
  }
  template <class Number>
  static std::string bytes(const std::vector<Number>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Number)};
  }
  void write_part(const std::string& part, const std::string& x, const std::string& y) const {
    write("x_" + part + ".npy", x);
    write("y_" + part + ".npy", y);
  }
};

TEST_F(Npy, NumbersOfEveryKind) {
  const std::string labels = npy("<i8", "2,", bytes<std::int64_t>({3, 0}));
  const std::pair<std::string, std::string> kinds[] = {
      {"<f4", bytes<float>({1, 2, 3, 4})},        {"<f8", bytes<double>({1, 2, 3, 4})},
      {"|i1", bytes<std::int8_t>({1, 2, 3, 4})},  {"<u2", bytes<std::uint16_t>({1, 2, 3, 4})},
      {"<i2", bytes<std::int16_t>({1, 2, 3, 4})}, {"<u4", bytes<std::uint32_t>({1, 2, 3, 4})},
      {"<i4", bytes<std::int32_t>({1, 2, 3, 4})}, {"<u8", bytes<std::uint64_t>({1, 2, 3, 4})},
      {"<i8", bytes<std::int64_t>({1, 2, 3, 4})},
  };
  for (const auto& [descr, data] : kinds) {
    write_part("train", npy(descr, "2, 2", data), labels);
    write_part("test", npy(descr, "2, 2", data), labels);
    const Dataset dataset = load("npy");
    EXPECT_EQ(row_of(*dataset.train, 0), (Row{{1.0F, 2.0F}, 3})) << descr;
    EXPECT_EQ(row_of(*dataset.train, 1), (Row{{3.0F, 4.0F}, 0})) << descr;
    EXPECT_EQ(dataset.train->classes(), 4u);
  }
}

TEST_F(Npy, BytesArePixelsAndMoreDimensionsAreARow) {
  const std::string images(std::string("\x00\xff\x33\x00", 4) + std::string("\xff\xff\xff\xff", 4));
  write_part("train", npy("|u1", "2, 2, 2", images), npy("|u1", "2, 1", std::string("\x07\x01", 2)));
  write_part("test", npy("|u1", "2, 2, 2", images), npy("<f4", "2,", bytes<float>({0, 9})));
  const Dataset dataset = load("npy");
  EXPECT_EQ(row_of(*dataset.train, 0), (Row{{0.0F, 1.0F, 51 * (1.0F / 255.0F), 0.0F}, 7}));
  EXPECT_EQ(row_of(*dataset.test, 1).label, 9);
}

TEST_F(Npy, ErrorsSayWhatIsWrong) {
  const std::string x = npy("<f4", "2, 2", bytes<float>({1, 2, 3, 4}));
  const std::string y = npy("|u1", "2,", std::string("\x00\x01", 2));
  const auto fails = [&](const std::string& bad_x, const std::string& bad_y, const char* text) {
    write_part("train", bad_x, bad_y);
    const std::string error = error_of("npy");
    EXPECT_NE(error.find(text), std::string::npos) << error << " instead of " << text;
  };
  EXPECT_NE(error_of("npy").find("x_train.npy"), std::string::npos);
  fails(x.substr(0, x.size() - 1), y, "x_train.npy: is cut off");
  fails(x + "z", y, "x_train.npy: is longer than its header says");
  fails(x.substr(0, 40), y, "is cut off in its header");
  fails(x.substr(0, 5), y, "is no .npy file, or cut off");
  fails("PK\x03\x04" + x, y, "does not begin with");
  fails(npy("<f4", "2, 2", bytes<float>({1, 2, 3, 4}), "True"), y, "Fortran order");
  fails(npy("|O", "2, 2", "????????"), y, "has values of type '|O'");
  fails(npy("<f4", "3, 1", bytes<float>({1, 2, 3})), y, "x_train.npy: has 3 rows, ");
  fails(npy("<f4", "99999999999, 99999999999", "????"), y, "x_train.npy: is cut off");
  fails(x, npy("<f4", "2,", bytes<float>({0.5F, 1})), "y_train.npy: row 0: a label is a whole number");
  fails(x, npy("<i4", "2,", bytes<std::int32_t>({0, -1})), "y_train.npy: row 1");
  fails(x, x, "y_train.npy: has more than one number for each row");
  fails(npy("<f4", "0, 2", ""), npy("|u1", "0,", ""), "there are no rows");
  write_part("train", x, y);
  write_part("test", npy("<f4", "2, 1", bytes<float>({1, 2})), y);
  EXPECT_NE(error_of("npy").find("has 1 values in a row, "), std::string::npos);
}

TEST_F(Npy, ARowThatCannotBeReadAnyMoreIsAnError) {
  const std::string y = npy("|u1", "2,", std::string("\x00\x01", 2));
  const std::string x = npy("<f4", "2, 2", bytes<float>({1, 2, 3, 4}));
  write_part("train", x, y);
  write_part("test", x, y);
  const Dataset dataset = load("npy");
  std::filesystem::resize_file(path_ + "/x_train.npy", 20);
  std::vector<float> features(2);
  std::uint8_t label = 0;
  const std::uint32_t row = 1;
  const Result<void> gathered = dataset.train->gather(std::span(&row, 1), features, std::span(&label, 1));
  ASSERT_FALSE(gathered);
  EXPECT_NE(gathered.error().message().find("x_train.npy: row 1"), std::string::npos);
}

TEST(LoadDataset, NamesThoseThatThereAre) {
  const Result<Dataset> loaded = load_dataset({.name = "cifar", .directory = "/"});
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().message(),
            "invalid: no data set 'cifar'; there are mnist, csv, npy, higgs and molecular");
}

}  // namespace
}  // namespace gradfs::trainer
