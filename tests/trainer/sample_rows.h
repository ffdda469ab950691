// A row of a data set, and a folder for the files of one.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fs/base/check.h"
#include "trainer/dataset.h"

namespace gradfs::trainer {

struct Row {
  std::vector<float> features;
  std::uint8_t label = 0;
  bool operator==(const Row&) const = default;
};

inline Row row_of(const Samples& samples, std::uint32_t number) {
  Row row{std::vector<float>(samples.features()), 0};
  const Result<void> gathered = samples.gather(std::span(&number, 1), row.features, std::span(&row.label, 1));
  GRADFS_CHECK(gathered.has_value());
  return row;
}

// A test with a folder of its own, for a data set of one kind ("csv").
class DataFiles : public testing::Test {
 protected:
  explicit DataFiles(std::string kind) : kind_(std::move(kind)) {
    std::string pattern = std::filesystem::temp_directory_path() / ("gradfs-" + kind_ + "-XXXXXX");
    GRADFS_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~DataFiles() override { std::filesystem::remove_all(path_); }

  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << content;
  }
  // Why it cannot be loaded: one line.
  [[nodiscard]] std::string error_of(const std::string& label = "") const {
    const Result<Dataset> loaded = load_dataset({.name = kind_, .directory = path_, .label = label});
    EXPECT_FALSE(loaded);
    if (loaded) return "";
    EXPECT_EQ(loaded.error().message().find('\n'), std::string::npos);
    return loaded.error().message();
  }
  [[nodiscard]] Dataset load(const std::string& label = "") const {
    Result<Dataset> loaded = load_dataset({.name = kind_, .directory = path_, .label = label});
    EXPECT_TRUE(loaded) << loaded.error().message();
    GRADFS_CHECK(loaded.has_value());
    return std::move(loaded.value());
  }

  const std::string kind_;
  std::string path_;
};

}  // namespace gradfs::trainer
