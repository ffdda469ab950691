#include "trainer/csv.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "tests/trainer/sample_rows.h"

namespace gradfs::trainer {
namespace {

class Csv : public DataFiles {
 protected:
  Csv() : DataFiles("csv") {}
};

TEST_F(Csv, FirstColumnIsTheLabelWithoutAHeader) {
  write("train.csv", "1,0.5,-2\n0,1e3,+4\n2,nan,inf\n");
  write("test.csv", "1,7,8\n");
  const Dataset data = load();
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
  EXPECT_EQ(row_of(*load().train, 0), (Row{{1.0F, 2.0F}, 3}));
  EXPECT_EQ(row_of(*load("b").train, 1), (Row{{4.0F, 5.0F}, 6}));
  EXPECT_EQ(row_of(*load("0").train, 1), (Row{{5.0F, 6.0F}, 4}));
  EXPECT_NE(error_of("c").find("train.csv line 1: no column 'c' for the label"), std::string::npos);
  EXPECT_NE(error_of("3").find("no column '3'"), std::string::npos);
}

TEST_F(Csv, WithoutATestEachTenthRowIsForTesting) {
  std::string text;
  for (int i = 0; i < 25; ++i) text += "0," + std::to_string(i) + "\n";
  write("train.csv", text);
  const Dataset data = load();
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
  EXPECT_NE(error_of().find("train.csv"), std::string::npos);
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
    EXPECT_NE(error_of().find(text), std::string::npos) << content << ": " << error_of();
  }
  write("train.csv", "1,2,3\n");
  write("test.csv", "1,2\n");
  EXPECT_NE(error_of().find("test.csv has 2 columns"), std::string::npos);
}

TEST_F(Csv, SeparatorIsWhatTheFirstLineHas) {
  for (const char* text : {"1,2,3\n", "1;2;3\n", "1\t2\t3\n", "1 , 2 , 3", "\"1\",\"2\",\"3\"\r\n"}) {
    write("train.csv", text);
    write("test.csv", text);
    EXPECT_EQ(row_of(*load().train, 0), (Row{{2.0F, 3.0F}, 1})) << text;
  }
}

TEST_F(Csv, NumbersOfAnySizeAreFloats) {
  write("train.csv", "1,1e400,-1e400,1e-400,-nan,1e-40,.5,16777217\n");
  write("test.csv", "0,1,2,3,4,5,6,7\n");
  const std::vector<float> row = row_of(*load().train, 0).features;
  EXPECT_EQ(row[0], HUGE_VALF);
  EXPECT_EQ(row[1], -HUGE_VALF);
  EXPECT_EQ(row[2], 0.0F);
  EXPECT_TRUE(std::isnan(row[3]));
  EXPECT_EQ(row[4], 1e-40F);
  EXPECT_EQ(row[5], 0.5F);
  EXPECT_EQ(row[6], 16777216.0F);
}

TEST_F(Csv, AByteOrderMarkIsNoHeader) {
  write("train.csv",
        "\xef\xbb\xbf"
        "1,2\n0,3\n");
  write("test.csv",
        "\xef\xbb\xbf"
        "label,x\n0,3\n");
  EXPECT_EQ(load().train->rows(), 2u);
  EXPECT_EQ(load().test->rows(), 1u);
}

TEST_F(Csv, AMissingValueIsNoHeader) {
  write("train.csv", "1,,2\n1,2,3\n");
  EXPECT_NE(error_of().find("train.csv line 1: '' is not a number"), std::string::npos) << error_of();
}

TEST_F(Csv, ALineThatIsCutOffIsNamed) {
  std::string text = "label";
  for (int i = 0; i < 27; ++i) text += ",f" + std::to_string(i);
  for (int row = 0; row < 15; ++row) {
    text += "\n1";
    for (int i = 0; i < 27; ++i) text += ",0.25";
  }
  write("train.csv", text + "\n0" + text.substr(text.size() - 26 * 5));
  EXPECT_EQ(error_of(), "invalid: " + path_ + "/train.csv line 17: 27 values, the lines before have 28");
}

TEST_F(Csv, LabelColumnIsFoundByItsWholeName) {
  write("train.csv", "1,2,3\n4,5,6\n");
  write("test.csv", "1,2,3\n");
  EXPECT_EQ(row_of(*load("2").train, 1), (Row{{4.0F, 5.0F}, 6}));
  for (const char* label : {"2x", "-1", "3", "18446744073709551616", "label"}) {
    EXPECT_NE(error_of(label).find("no column '" + std::string(label) + "'"), std::string::npos)
        << error_of(label);
  }
}

TEST_F(Csv, TestHasTheColumnsOfTrain) {
  write("train.csv", "a,label\n1,2\n");
  write("test.csv", "3,4\n");
  EXPECT_EQ(row_of(*load().test, 0), (Row{{3.0F}, 4})) << "without a header, the place decides";
  write("test.csv", "label,a\n2,1\n");
  EXPECT_NE(error_of().find("test.csv line 1: names other columns than "), std::string::npos) << error_of();
  write("test.csv", "a,label\n");
  EXPECT_NE(error_of().find("test.csv: there are no rows"), std::string::npos) << error_of();
  write("test.csv", "a,label\n1,2\n1\n");
  EXPECT_NE(error_of().find("test.csv line 3: 1 values"), std::string::npos) << error_of();
}

TEST_F(Csv, MissingDataSaysWhatIsNeeded) {
  EXPECT_NE(error_of().find("/train.csv: the data must be there, or be named as one .csv file"),
            std::string::npos);
}

TEST_F(Csv, RowsOutliveTheirFile) {
  write("train.csv", "1,2\n3,4\n");
  write("test.csv", "5,6\n");
  const Dataset data = load();
  std::filesystem::remove(path_ + "/train.csv");
  EXPECT_EQ(row_of(*data.train, 1), (Row{{4.0F}, 3}));
}

// More rows than are written at once.
TEST_F(Csv, LongTablesKeepTheirOrder) {
  std::string text;
  constexpr int kRows = 3000;
  for (int row = 0; row < kRows; ++row) {
    text += std::to_string(row % 7);
    for (int i = 0; i < 100; ++i) text += "," + std::to_string(row + i);
    text += '\n';
  }
  write("train.csv", text);
  write("test.csv", text);
  const Dataset data = load();
  ASSERT_EQ(data.train->rows(), static_cast<std::size_t>(kRows));
  for (const std::uint32_t number : {0U, 2620U, 2621U, 2622U, 2999U}) {
    const Row row = row_of(*data.train, number);
    EXPECT_EQ(row.label, number % 7);
    EXPECT_EQ(row.features[0], static_cast<float>(number));
    EXPECT_EQ(row.features[99], static_cast<float>(number + 99));
  }
}

class TemporaryDirectory : public Csv {
 protected:
  TemporaryDirectory() {
    if (const char* variable = std::getenv("TMPDIR")) before_ = variable;
  }
  ~TemporaryDirectory() override {
    before_.empty() ? ::unsetenv("TMPDIR") : ::setenv("TMPDIR", before_.c_str(), 1);
  }

  std::string before_;
};

TEST_F(TemporaryDirectory, MustExist) {
  write("train.csv", "1,2\n");
  ::setenv("TMPDIR", (path_ + "/nowhere").c_str(), 1);
  EXPECT_NE(error_of().find("no directory for temporary files: set TMPDIR to one"), std::string::npos)
      << error_of();
}

TEST_F(TemporaryDirectory, IsLeftEmpty) {
  write("train.csv", "1,2\n");
  write("test.csv", "1,2\n");
  const std::string temporary = path_ + "/tmp";
  std::filesystem::create_directory(temporary);
  ::setenv("TMPDIR", temporary.c_str(), 1);
  const Dataset data = load();
  EXPECT_TRUE(std::filesystem::is_empty(temporary));
}

// A limit on the size of files stands for a disk that is full.
TEST_F(TemporaryDirectory, ThatIsFullIsAnError) {
  write("train.csv", "1,2,3,4,5\n1,2,3,4,5\n");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{16, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = error_of();
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(error.find("train.csv: its temporary copy: "), std::string::npos) << error;
  EXPECT_NE(error.find("; set TMPDIR to a directory with more space"), std::string::npos) << error;
}

}  // namespace
}  // namespace gradfs::trainer
