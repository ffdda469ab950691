// What all data sets have in common; the others of these files test each kind.
#include "trainer/dataset.h"

#include <gtest/gtest.h>

namespace gradfs::trainer {
namespace {

std::string error_of(const DatasetOptions& options) {
  const Result<Dataset> loaded = load_dataset(options);
  return loaded ? "" : loaded.error().message();
}

TEST(LoadDataset, NamesThoseThatThereAre) {
  EXPECT_EQ(error_of({.name = "cifar", .directory = "/"}),
            "invalid: no data set 'cifar'; there are mnist, higgs, molecular, csv, npy");
}

TEST(LoadDataset, FilesNeedADirectoryAndGeneratedOnesDoNot) {
  for (const char* name : {"mnist", "csv", "npy"}) {
    EXPECT_TRUE(dataset_needs_directory(name)) << name;
    EXPECT_NE(error_of({.name = name, .directory = "/nowhere/at/all"}).find("/nowhere/at/all"),
              std::string::npos)
        << name;
  }
  for (const char* name : {"higgs", "molecular"}) {
    EXPECT_FALSE(dataset_needs_directory(name)) << name;
    EXPECT_EQ(error_of({.name = name, .rows = 1, .test_rows = 1}), "") << name;
  }
}

TEST(LoadDataset, RowNumbersAreOf32Bits) {
  EXPECT_EQ(error_of({.name = "higgs", .rows = kGeneratedRowsMax}), "");
  EXPECT_EQ(error_of({.name = "higgs", .rows = kGeneratedRowsMax + 1}),
            "invalid: at most 4294967295 rows can be generated");
  EXPECT_EQ(error_of({.name = "higgs", .test_rows = kGeneratedRowsMax + 1}),
            "invalid: at most 4294967295 rows can be generated");
}

TEST(LoadDataset, BytesNeedALabelForEachRow) {
  EXPECT_TRUE(make_byte_samples({1, 2, 3, 4}, 2, {0, 1}));
  EXPECT_FALSE(make_byte_samples({1, 2, 3}, 2, {0, 1}));
  EXPECT_FALSE(make_byte_samples({}, 2, {}));
  EXPECT_FALSE(make_byte_samples({}, 0, {1}));
}

}  // namespace
}  // namespace gradfs::trainer
