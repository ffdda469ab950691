#include "trainer/npy.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "tests/trainer/sample_rows.h"

namespace gradfs::trainer {
namespace {

class Npy : public DataFiles {
 protected:
  Npy() : DataFiles("npy") {}

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
    const Dataset dataset = load();
    EXPECT_EQ(row_of(*dataset.train, 0), (Row{{1.0F, 2.0F}, 3})) << descr;
    EXPECT_EQ(row_of(*dataset.train, 1), (Row{{3.0F, 4.0F}, 0})) << descr;
    EXPECT_EQ(dataset.train->classes(), 4u);
  }
}

TEST_F(Npy, BytesArePixelsAndMoreDimensionsAreARow) {
  const std::string images(std::string("\x00\xff\x33\x00", 4) + std::string("\xff\xff\xff\xff", 4));
  write_part("train", npy("|u1", "2, 2, 2", images), npy("|u1", "2, 1", std::string("\x07\x01", 2)));
  write_part("test", npy("|u1", "2, 2, 2", images), npy("<f4", "2,", bytes<float>({0, 9})));
  const Dataset dataset = load();
  EXPECT_EQ(row_of(*dataset.train, 0), (Row{{0.0F, 1.0F, 51 * (1.0F / 255.0F), 0.0F}, 7}));
  EXPECT_EQ(row_of(*dataset.test, 1).label, 9);
}

TEST_F(Npy, ErrorsSayWhatIsWrong) {
  const std::string x = npy("<f4", "2, 2", bytes<float>({1, 2, 3, 4}));
  const std::string y = npy("|u1", "2,", std::string("\x00\x01", 2));
  const auto fails = [&](const std::string& bad_x, const std::string& bad_y, const char* text) {
    write_part("train", bad_x, bad_y);
    const std::string error = error_of();
    EXPECT_NE(error.find(text), std::string::npos) << error << " instead of " << text;
  };
  EXPECT_NE(error_of().find("x_train.npy"), std::string::npos);
  fails(x.substr(0, x.size() - 1), y, "x_train.npy: is cut off");
  fails(x + "z", y, "x_train.npy: is longer than its header says");
  fails(x.substr(0, 40), y, "is cut off in its header");
  fails(x.substr(0, 5), y, "is no .npy file, or cut off");
  fails("PK\x03\x04" + x, y, "does not begin with");
  fails(npy("<f4", "2, 2", bytes<float>({1, 2, 3, 4}), "True"), y, "Fortran order");
  fails(npy("|O", "2, 2", "????????"), y, "has Python objects");
  fails(npy("<f4", "3, 1", bytes<float>({1, 2, 3})), y, "x_train.npy: has 3 rows, ");
  fails(npy("<f4", "99999999999, 99999999999", "????"), y, "x_train.npy: is cut off");
  fails(x, npy("<f4", "2,", bytes<float>({0.5F, 1})), "y_train.npy: row 0: a label is a whole number");
  fails(x, npy("<i4", "2,", bytes<std::int32_t>({0, -1})), "y_train.npy: row 1");
  fails(x, x, "y_train.npy: has more than one number for each row");
  fails(npy("<f4", "0, 2", ""), npy("|u1", "0,", ""), "there are no rows");
  write_part("train", x, y);
  write_part("test", npy("<f4", "2, 1", bytes<float>({1, 2})), y);
  EXPECT_NE(error_of().find("has 1 values in a row, "), std::string::npos);
}

TEST_F(Npy, ARowThatCannotBeReadAnyMoreIsAnError) {
  const std::string y = npy("|u1", "2,", std::string("\x00\x01", 2));
  const std::string x = npy("<f4", "2, 2", bytes<float>({1, 2, 3, 4}));
  write_part("train", x, y);
  write_part("test", x, y);
  const Dataset dataset = load();
  std::filesystem::resize_file(path_ + "/x_train.npy", 20);
  std::vector<float> features(2);
  std::uint8_t label = 0;
  const std::uint32_t row = 1;
  const Result<void> gathered = dataset.train->gather(std::span(&row, 1), features, std::span(&label, 1));
  ASSERT_FALSE(gathered);
  EXPECT_NE(gathered.error().message().find("x_train.npy: row 1"), std::string::npos);
}

TEST_F(Npy, LaterVersionsHaveALongerLength) {
  const std::string y = npy("|u1", "1,", std::string("\x05", 1));
  std::string x = npy("<f4", "1, 2", bytes<float>({1, 2}));
  x.insert(10, 2, '\0');
  for (const char version : {'\x02', '\x03'}) {
    x[6] = version;
    write_part("train", x, y);
    write_part("test", x, y);
    EXPECT_EQ(row_of(*load().train, 0), (Row{{1.0F, 2.0F}, 5}));
  }
  x[6] = 4;
  write_part("train", x, y);
  EXPECT_NE(error_of().find("x_train.npy: has version 4 of the format"), std::string::npos) << error_of();
}

TEST_F(Npy, WithoutATestEachTenthRowIsForTesting) {
  std::vector<float> x(20);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  write_part("train", npy("<f4", "20, 1", bytes(x)), npy("|u1", "20,", std::string(20, '\x01')));
  const Dataset data = load();
  EXPECT_EQ(data.train->rows(), 18u);
  EXPECT_EQ(data.test->rows(), 2u);
  EXPECT_EQ(row_of(*data.train, 9).features[0], 10.0F);
  EXPECT_EQ(row_of(*data.test, 1).features[0], 19.0F);
  write("y_test.npy", npy("|u1", "1,", "\x01"));
  EXPECT_NE(error_of().find("x_test.npy: numpy.save makes one"), std::string::npos) << error_of();
}

// More labels than are read at once.
TEST_F(Npy, ManyLabels) {
  std::vector<std::int16_t> labels(70'000);
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int16_t>(i % 251);
  const std::string y = npy("<i2", "70000,", bytes(labels));
  const std::string x = npy("|b1", "70000, 1", std::string(labels.size(), '\x01'));
  write_part("train", x, y);
  write_part("test", x, y);
  const Dataset data = load();
  for (const std::uint32_t row : {0U, 65'535U, 65'536U, 69'999U}) {
    EXPECT_EQ(row_of(*data.train, row), (Row{{1.0F}, static_cast<std::uint8_t>(row % 251)}));
  }
  labels[66'000] = 256;
  write("y_train.npy", npy("<i2", "70000,", bytes(labels)));
  EXPECT_NE(error_of().find("y_train.npy: row 66000: a label"), std::string::npos) << error_of();
}

TEST_F(Npy, HeadersThatAreNotNumPysAreRefused) {
  const std::string y = npy("|u1", "2,", std::string("\x00\x01", 2));
  const auto fails = [&](const std::string& bad_x, const char* text) {
    write_part("train", bad_x, y);
    const std::string error = error_of();
    EXPECT_NE(error.find("x_train.npy: "), std::string::npos) << error;
    EXPECT_NE(error.find(text), std::string::npos) << error << " instead of " << text;
  };
  const std::string data = bytes<float>({1, 2, 3, 4});
  const auto with_header = [&](const std::string& header) {
    return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size()) + '\0' + header + data;
  };
  fails(with_header("{'descr': '<f4', 'fortran_order': False, 'shape': ,}"), "its header is not NumPy's");
  fails(with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2"), "its header is not NumPy's");
  fails(with_header("{'descr': '<f4', 'fortran_order': False}"), "its header is not NumPy's");
  fails(with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, x), }"),
        "its header is not NumPy's");
  fails(with_header("{'descr': "), "its header is not NumPy's");
  fails(npy("<f4", "", bytes<float>({1})), "is a single number");
  fails(npy("<f4", "4,", data), "has one dimension");
  fails(npy(">f4", "2, 2", data), "has values of type '>f4'");
  fails(npy("<f2", "2, 2", data.substr(0, 8)), "has values of type '<f2'");
  fails(npy("<f4", "2, 0", ""), "there are no rows, or no values in them");
}

}  // namespace
}  // namespace gradfs::trainer
