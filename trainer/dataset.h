// Labelled data sets: rows of features, a label for each, for training and for testing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::trainer {

// Rows that can be had in any order; how they are kept is the implementation's affair: in memory, in a file,
// or computed. Immutable, so that any thread, and a forked process, may call it.
class Samples {
 public:
  virtual ~Samples() = default;
  [[nodiscard]] virtual std::size_t rows() const noexcept = 0;
  [[nodiscard]] virtual std::size_t features() const noexcept = 0;
  // One more than the largest label.
  [[nodiscard]] virtual std::size_t classes() const noexcept = 0;

  // The rows named by `rows`, as features one row after the other, and their labels. The spans are large
  // enough. kIo: they cannot be read any more.
  [[nodiscard]] virtual Result<void> gather(std::span<const std::uint32_t> rows, std::span<float> features,
                                            std::span<std::uint8_t> labels) const = 0;
};

// Rows of bytes in memory, given as values between 0 and 1. pixels: rows * row_bytes. kInvalid if the counts
// differ, or there are none.
Result<std::unique_ptr<Samples>> make_byte_samples(std::vector<std::uint8_t> pixels, std::size_t row_bytes,
                                                   std::vector<std::uint8_t> labels);

struct Dataset {
  std::string name;
  std::unique_ptr<Samples> train;
  std::unique_ptr<Samples> test;
};

struct DatasetOptions {
  std::string name;             // mnist, csv, npy, higgs, molecular
  std::string directory = {};   // of the files; not used by the last two, which are generated
  std::uint64_t rows = 0;       // generated: for training; 0 for kGeneratedRows
  std::uint64_t test_rows = 0;  // generated: for testing; 0 for kGeneratedTestRows
  std::uint64_t seed = 1;       // generated: of the function and the rows
  std::string label = {};       // csv: its column, as load_csv takes it
};
inline constexpr std::uint64_t kGeneratedRows = 200'000;
inline constexpr std::uint64_t kGeneratedTestRows = 2'000;
inline constexpr std::uint64_t kGeneratedRowsMax = 0xffff'ffff;  // of either; row numbers are 32 bits wide

// mnist: train-images-idx3-ubyte or train-images.idx3-ubyte, and so on; csv.h and npy.h say what theirs are.
// Errors are one line that says what to do.
Result<Dataset> load_dataset(const DatasetOptions& options);

// The set is read from files, so that options.directory is needed.
bool dataset_needs_directory(const std::string& name);

}  // namespace gradfs::trainer
