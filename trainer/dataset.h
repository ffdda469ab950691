// A labelled data set in memory: rows of byte features, a label for each.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fs/base/result.h"

namespace gradfs::trainer {

// Immutable after loading, so that forked workers share its pages.
class Samples {
 public:
  // kInvalid if the counts differ, or there are none. pixels: rows * row_bytes.
  static Result<Samples> make(std::vector<std::uint8_t> pixels, std::size_t row_bytes,
                              std::vector<std::uint8_t> labels);

  [[nodiscard]] std::size_t rows() const noexcept { return labels_.size(); }
  [[nodiscard]] std::size_t features() const noexcept { return features_; }
  // One more than the largest label.
  [[nodiscard]] std::size_t classes() const noexcept { return classes_; }

  // The rows named by `rows`, as features between 0 and 1, and their labels. The spans are large enough.
  void gather(std::span<const std::uint32_t> rows, std::span<float> features,
              std::span<std::uint8_t> labels) const;

 private:
  Samples() = default;

  std::vector<std::uint8_t> pixels_;
  std::vector<std::uint8_t> labels_;
  std::size_t features_ = 0;
  std::size_t classes_ = 0;
};

struct Dataset {
  std::string name;
  Samples train;
  Samples test;
};

// name: "mnist", the only one there is. directory: of its files, by their usual names
// (train-images-idx3-ubyte or train-images.idx3-ubyte). Errors are one line that says what to do.
Result<Dataset> load_dataset(const std::string& name, const std::string& directory);

}  // namespace gradfs::trainer
