#include "trainer/row_file.h"

#include <algorithm>
#include <cstring>

#include "fs/base/check.h"

namespace gradfs::trainer {
namespace {

constexpr float kPixelScale = 1.0F / 255.0F;

template <class Number>
void convert(const std::byte* from, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    Number number;
    std::memcpy(&number, from + i * sizeof number, sizeof number);
    to[i] = static_cast<float>(number);
  }
}

void convert(NumberType type, const std::byte* from, std::span<float> to) {
  switch (type) {
    case NumberType::kF32:
      std::memcpy(to.data(), from, to.size_bytes());
      return;
    case NumberType::kF64:
      return convert<double>(from, to);
    case NumberType::kU8:
      convert<std::uint8_t>(from, to);
      for (float& value : to) value *= kPixelScale;
      return;
    case NumberType::kI8:
      return convert<std::int8_t>(from, to);
    case NumberType::kU16:
      return convert<std::uint16_t>(from, to);
    case NumberType::kI16:
      return convert<std::int16_t>(from, to);
    case NumberType::kU32:
      return convert<std::uint32_t>(from, to);
    case NumberType::kI32:
      return convert<std::int32_t>(from, to);
    case NumberType::kU64:
      return convert<std::uint64_t>(from, to);
    case NumberType::kI64:
      return convert<std::int64_t>(from, to);
  }
}

class RowFileSamples final : public Samples {
 public:
  RowFileSamples(RowFile file, RowChoice choice, std::size_t rows)
      : file_(std::move(file)),
        choice_(choice),
        rows_(rows),
        classes_(std::size_t{*std::ranges::max_element(*file_.labels)} + 1) {}

  [[nodiscard]] std::size_t rows() const noexcept override { return rows_; }
  [[nodiscard]] std::size_t features() const noexcept override { return file_.features; }
  [[nodiscard]] std::size_t classes() const noexcept override { return classes_; }

  [[nodiscard]] Result<void> gather(std::span<const std::uint32_t> rows, std::span<float> features,
                                    std::span<std::uint8_t> labels) const override {
    GRADFS_CHECK(features.size() >= rows.size() * file_.features && labels.size() >= rows.size());
    const std::size_t row_bytes = file_.features * bytes_of(file_.type);
    std::vector<std::byte> buffer(row_bytes);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::size_t row = place_of(rows[i]);
      if (Result<void> read = read_fully_at(file_.fd->get(), buffer, file_.data_start + row * row_bytes);
          !read) {
        return Error(Errc::kIo, file_.path + ": row " + std::to_string(row) + ": " + read.error().message());
      }
      convert(file_.type, buffer.data(), features.subspan(i * file_.features, file_.features));
      labels[i] = (*file_.labels)[row];
    }
    return ok();
  }

 private:
  [[nodiscard]] std::size_t place_of(std::size_t row) const {
    GRADFS_CHECK(row < rows_);
    constexpr std::size_t kOthers = kTestingPeriod - 1;
    switch (choice_) {
      case RowChoice::kTraining:
        return row / kOthers * kTestingPeriod + row % kOthers;
      case RowChoice::kTesting:
        return row * kTestingPeriod + kOthers;
      case RowChoice::kAll:
        break;
    }
    return row;
  }

  const RowFile file_;
  const RowChoice choice_;
  const std::size_t rows_;
  const std::size_t classes_;
};

}  // namespace

std::size_t bytes_of(NumberType type) noexcept {
  switch (type) {
    case NumberType::kU8:
    case NumberType::kI8:
      return 1;
    case NumberType::kU16:
    case NumberType::kI16:
      return 2;
    case NumberType::kF64:
    case NumberType::kU64:
    case NumberType::kI64:
      return 8;
    case NumberType::kF32:
    case NumberType::kU32:
    case NumberType::kI32:
      break;
  }
  return 4;
}

Result<std::unique_ptr<Samples>> open_row_file(RowFile file, RowChoice choice) {
  const std::size_t all = file.labels->size();
  const std::size_t testing = all / kTestingPeriod;
  const std::size_t rows = choice == RowChoice::kAll       ? all
                           : choice == RowChoice::kTesting ? testing
                                                           : all - testing;
  if (rows == 0 || file.features == 0) {
    const bool few = all > 0 && file.features > 0;
    return Error(Errc::kInvalid, file.path + (few ? ": fewer than ten rows, of which one would be for testing"
                                                  : ": there are no rows"));
  }
  return std::unique_ptr<Samples>(std::make_unique<RowFileSamples>(std::move(file), choice, rows));
}

}  // namespace gradfs::trainer
