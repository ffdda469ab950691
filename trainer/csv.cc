#include "trainer/csv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>

#include "trainer/row_file.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kFlushFloats = 1 << 18;
constexpr float kLabelMax = 255;
constexpr std::size_t kRowsMax = std::numeric_limits<std::uint32_t>::max();
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\"");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\"") - begin + 1);
}

void split(std::string_view line, char separator, std::vector<std::string_view>& fields) {
  fields.clear();
  for (std::size_t begin = 0;;) {
    const std::size_t end = line.find(separator, begin);
    fields.push_back(trimmed(line.substr(begin, end - begin)));
    if (end == std::string_view::npos) return;
    begin = end + 1;
  }
}

std::optional<float> number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  float value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  // from_chars does not say whether it is too large or too small: that is infinity or about 0.
  if (parsed.ec == std::errc::result_out_of_range) return std::strtof(std::string(text).c_str(), nullptr);
  return value;
}

char separator_of(const std::string& line) {
  for (const char separator : {',', ';', '\t'}) {
    if (line.find(separator) != std::string::npos) return separator;
  }
  return ',';
}

// A file's rows, and what the file for testing must have in common with that for training.
struct Table {
  RowFile rows;
  std::vector<std::string> names;  // of the columns; none if the file has no header
  std::size_t columns = 0;
  std::size_t label_column = 0;
};

// Reads a file's lines and writes its rows to a temporary file.
class Reader {
 public:
  // train: what was read before, whose columns this file must have; null for none.
  Reader(std::string path, std::string label, const Table* train)
      : path_(std::move(path)), label_name_(std::move(label)), train_(train) {}

  Result<Table> read() {
    std::ifstream in(path_);
    if (!in) return errno_error(path_);
    GRADFS_TRYV(make_temporary());
    for (std::string line; std::getline(in, line);) {
      if (line_number_++ == 0 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
      if (trimmed(line).empty()) continue;
      GRADFS_TRYV(take(line));
    }
    if (in.bad()) return errno_error(path_);
    GRADFS_TRYV(flush());
    table_.rows.fd = std::make_shared<UniqueFd>(std::move(temporary_));
    table_.rows.path = path_;
    table_.rows.features = table_.columns == 0 ? 0 : table_.columns - 1;
    table_.rows.labels = std::make_shared<const std::vector<std::uint8_t>>(std::move(labels_));
    return std::move(table_);
  }

 private:
  [[nodiscard]] Error wrong(const std::string& what) const {
    return Error(Errc::kInvalid, path_ + " line " + std::to_string(line_number_) + ": " + what);
  }

  Result<void> make_temporary() {
    std::error_code error;
    const std::filesystem::path directory = std::filesystem::temp_directory_path(error);
    if (error) return Error(Errc::kNotFound, "no directory for temporary files: set TMPDIR to one");
    std::string name = directory / "gradfs-rows-XXXXXX";
    temporary_ = UniqueFd(::mkostemp(name.data(), O_CLOEXEC));
    if (!temporary_) return errno_error("a temporary file in " + directory.string());
    ::unlink(name.c_str());
    return ok();
  }

  Result<void> take(const std::string& line) {
    if (table_.columns != 0) {
      split(line, separator_, fields_);
      return take_row();
    }
    separator_ = separator_of(line);
    split(line, separator_, fields_);
    GRADFS_TRY(const bool is_header, take_first());
    return is_header ? ok() : take_row();
  }

  // The first line says what the columns are. Whether it is a header.
  Result<bool> take_first() {
    if (fields_.size() < 2) {
      return wrong("a row is a label and at least one value, with commas between them");
    }
    // An empty field alone is rather a value that is missing.
    const bool is_header = std::ranges::any_of(
        fields_, [](std::string_view field) { return !field.empty() && !number(field).has_value(); });
    table_.columns = fields_.size();
    if (is_header) table_.names.assign(fields_.begin(), fields_.end());
    if (train_ == nullptr) {
      GRADFS_TRY(table_.label_column, find_label());
      return is_header;
    }
    table_.label_column = train_->label_column;
    if (table_.columns != train_->columns) {
      return Error(Errc::kInvalid, path_ + " has " + std::to_string(table_.columns) + " columns, " +
                                       train_->rows.path + " has " + std::to_string(train_->columns));
    }
    if (is_header && !train_->names.empty() && table_.names != train_->names) {
      return wrong("names other columns than " + train_->rows.path);
    }
    return is_header;
  }

  [[nodiscard]] Result<std::size_t> find_label() const {
    const std::string wanted = label_name_.empty() ? "label" : label_name_;
    const auto found = std::ranges::find(table_.names, wanted);
    if (found != table_.names.end()) return static_cast<std::size_t>(found - table_.names.begin());
    if (label_name_.empty()) return std::size_t{0};
    std::size_t column = 0;
    const char* end = label_name_.data() + label_name_.size();
    const auto parsed = std::from_chars(label_name_.data(), end, column);
    if (parsed.ec == std::errc() && parsed.ptr == end && column < table_.columns) return column;
    return wrong("no column '" + label_name_ + "' for the label; there are " +
                 std::to_string(table_.columns));
  }

  Result<void> take_row() {
    if (fields_.size() != table_.columns) {
      return wrong(std::to_string(fields_.size()) + " values, the lines before have " +
                   std::to_string(table_.columns));
    }
    for (std::size_t column = 0; column < fields_.size(); ++column) {
      const std::optional<float> value = number(fields_[column]);
      if (!value) return wrong("'" + std::string(fields_[column]) + "' is not a number");
      if (column != table_.label_column) {
        pending_.push_back(*value);
      } else if (*value >= 0 && *value <= kLabelMax && *value == std::floor(*value)) {
        labels_.push_back(static_cast<std::uint8_t>(*value));
      } else {
        return wrong("the label " + std::string(fields_[column]) + " is not a whole number from 0 to 255");
      }
    }
    if (labels_.size() > kRowsMax) return wrong("more than " + std::to_string(kRowsMax) + " rows");
    return pending_.size() >= kFlushFloats ? flush() : ok();
  }

  Result<void> flush() {
    const auto bytes = std::as_bytes(std::span(pending_));
    if (Result<void> written = write_fully_at(temporary_.get(), bytes, written_bytes_); !written) {
      return Error(written.error().code, path_ + ": its temporary copy: " + written.error().detail +
                                             "; set TMPDIR to a directory with more space");
    }
    written_bytes_ += bytes.size();
    pending_.clear();
    return ok();
  }

  const std::string path_;
  const std::string label_name_;
  const Table* const train_;
  Table table_;
  UniqueFd temporary_;
  std::uint64_t written_bytes_ = 0;
  std::vector<float> pending_;
  std::vector<std::uint8_t> labels_;
  std::size_t line_number_ = 0;
  std::vector<std::string_view> fields_;  // of the line at hand
  char separator_ = ',';
};

}  // namespace

Result<Dataset> load_csv(const std::string& path, const std::string& label) {
  Dataset out;
  out.name = "csv";
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return errno_error(path);
  const bool is_directory = S_ISDIR(status.st_mode);
  const std::string train_path = is_directory ? path + "/train.csv" : path;
  const std::string test_path = path + "/test.csv";
  if (::stat(train_path.c_str(), &status) != 0) {
    return Error(Errc::kNotFound, train_path + ": the data must be there, or be named as one .csv file");
  }
  GRADFS_TRY(Table train, Reader(train_path, label, nullptr).read());
  if (!is_directory || (::stat(test_path.c_str(), &status) != 0 && errno == ENOENT)) {
    GRADFS_TRY(out.train, open_row_file(train.rows, RowChoice::kTraining));
    GRADFS_TRY(out.test, open_row_file(std::move(train.rows), RowChoice::kTesting));
    return out;
  }
  GRADFS_TRY(Table test, Reader(test_path, label, &train).read());
  GRADFS_TRY(out.train, open_row_file(std::move(train.rows), RowChoice::kAll));
  GRADFS_TRY(out.test, open_row_file(std::move(test.rows), RowChoice::kAll));
  return out;
}

}  // namespace gradfs::trainer
