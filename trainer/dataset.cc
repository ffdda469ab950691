#include "trainer/dataset.h"

#include <sys/stat.h>

#include <algorithm>

#include "fs/base/check.h"
#include "trainer/csv.h"
#include "trainer/idx.h"
#include "trainer/npy.h"
#include "trainer/synthetic.h"

namespace gradfs::trainer {
namespace {

constexpr float kPixelScale = 1.0f / 255.0f;

bool exists(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0;
}

Result<std::string> find_file(const std::string& directory, const std::string& stem,
                              const std::string& ending) {
  for (const char* separator : {"-", "."}) {
    std::string path = directory + "/" + stem + separator + ending;
    if (exists(path)) return path;
  }
  return Error(Errc::kNotFound,
               directory + "/" + stem + "-" + ending + ": tools/get-mnist --to " + directory + " fetches it");
}

class ByteSamples final : public Samples {
 public:
  ByteSamples(std::vector<std::uint8_t> pixels, std::size_t row_bytes, std::vector<std::uint8_t> labels)
      : pixels_(std::move(pixels)),
        labels_(std::move(labels)),
        features_(row_bytes),
        classes_(std::size_t{*std::ranges::max_element(labels_)} + 1) {}

  [[nodiscard]] std::size_t rows() const noexcept override { return labels_.size(); }
  [[nodiscard]] std::size_t features() const noexcept override { return features_; }
  [[nodiscard]] std::size_t classes() const noexcept override { return classes_; }

  [[nodiscard]] Result<void> gather(std::span<const std::uint32_t> rows, std::span<float> features,
                                    std::span<std::uint8_t> labels) const override {
    GRADFS_CHECK(features.size() >= rows.size() * features_ && labels.size() >= rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::uint8_t* from = pixels_.data() + rows[i] * features_;
      float* to = features.data() + i * features_;
      for (std::size_t j = 0; j < features_; ++j) to[j] = static_cast<float>(from[j]) * kPixelScale;
      labels[i] = labels_[rows[i]];
    }
    return ok();
  }

 private:
  const std::vector<std::uint8_t> pixels_;
  const std::vector<std::uint8_t> labels_;
  const std::size_t features_;
  const std::size_t classes_;
};

Result<std::unique_ptr<Samples>> load_part(const std::string& directory, const std::string& part) {
  GRADFS_TRY(std::string images_path, find_file(directory, part + "-images", "idx3-ubyte"));
  GRADFS_TRY(std::string labels_path, find_file(directory, part + "-labels", "idx1-ubyte"));
  GRADFS_TRY(IdxArray images, read_idx(images_path, 3));
  GRADFS_TRY(IdxArray labels, read_idx(labels_path, 1));
  const std::size_t row_bytes = images.row_bytes();
  if (images.rows() != labels.rows()) {
    return Error(Errc::kInvalid, images_path + " has " + std::to_string(images.rows()) + " images, " +
                                     labels_path + " " + std::to_string(labels.rows()) + " labels");
  }
  return make_byte_samples(std::move(images.data), row_bytes, std::move(labels.data));
}

}  // namespace

Result<std::unique_ptr<Samples>> make_byte_samples(std::vector<std::uint8_t> pixels, std::size_t row_bytes,
                                                   std::vector<std::uint8_t> labels) {
  if (labels.empty() || row_bytes == 0) return Error(Errc::kInvalid, "no samples");
  if (pixels.size() != labels.size() * row_bytes)
    return Error(Errc::kInvalid, "as many labels as rows are needed");
  return std::unique_ptr<Samples>(
      std::make_unique<ByteSamples>(std::move(pixels), row_bytes, std::move(labels)));
}

namespace {

Result<Dataset> load_mnist(const std::string& directory) {
  GRADFS_TRY(std::unique_ptr<Samples> train, load_part(directory, "train"));
  GRADFS_TRY(std::unique_ptr<Samples> test, load_part(directory, "t10k"));
  if (train->features() != test->features()) {
    return Error(Errc::kInvalid, directory + ": images for training and for testing differ in size (" +
                                     std::to_string(train->features()) + " and " +
                                     std::to_string(test->features()) + " pixels)");
  }
  return Dataset{"mnist", std::move(train), std::move(test)};
}

Result<Dataset> generate(const SyntheticShape& shape, const DatasetOptions& options) {
  const std::uint64_t rows = options.rows == 0 ? kGeneratedRows : options.rows;
  const std::uint64_t test_rows = options.test_rows == 0 ? kGeneratedTestRows : options.test_rows;
  if (std::max(rows, test_rows) > kGeneratedRowsMax) {
    return Error(Errc::kInvalid, "at most " + std::to_string(kGeneratedRowsMax) + " rows can be generated");
  }
  return Dataset{shape.name, make_synthetic_samples(shape, options.seed, 0, rows),
                 make_synthetic_samples(shape, options.seed, 1, test_rows)};
}

}  // namespace

bool dataset_needs_directory(const std::string& name) {
  return name == "mnist" || name == "csv" || name == "npy";
}

Result<Dataset> load_dataset(const DatasetOptions& options) {
  if (options.name == "mnist") return load_mnist(options.directory);
  if (options.name == "csv") return load_csv(options.directory, options.label);
  if (options.name == "npy") return load_npy(options.directory);
  if (options.name == kHiggs.name) return generate(kHiggs, options);
  if (options.name == kMolecular.name) return generate(kMolecular, options);
  return Error(Errc::kInvalid,
               "no data set '" + options.name + "'; there are mnist, higgs, molecular, csv, npy");
}

}  // namespace gradfs::trainer
