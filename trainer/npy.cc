#include "trainer/npy.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "trainer/row_file.h"

namespace gradfs::trainer {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kPreamble = 8;  // magic and version
constexpr std::uint32_t kHeaderMax = 1 << 20;
constexpr double kLabelMax = 255;
constexpr std::size_t kRowsMax = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t kChunkRows = 1 << 16;  // of labels, read at once

struct NpyArray {
  std::shared_ptr<UniqueFd> fd;
  std::string path;
  NumberType type = NumberType::kF32;
  std::vector<std::uint64_t> shape;
  std::uint64_t data_start = 0;

  [[nodiscard]] std::uint64_t row_numbers() const {
    std::uint64_t count = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) count *= shape[i];
    return count;
  }
};

Error wrong(const std::string& path, const std::string& what) {
  return Error(Errc::kInvalid, path + ": " + what);
}

// What stands behind 'key': in the dictionary, up to the comma or bracket that ends it.
std::optional<std::string> value_of(const std::string& header, const std::string& key) {
  const std::size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) return std::nullopt;
  const std::size_t begin = header.find_first_not_of(' ', at + key.size() + 3);
  if (begin == std::string::npos) return std::nullopt;
  const std::size_t end = header[begin] == '(' ? header.find(')', begin) : header.find_first_of(",}", begin);
  if (end == std::string::npos) return std::nullopt;
  return header.substr(begin, end - begin);
}

std::optional<NumberType> type_of(const std::string& descr) {
  static constexpr std::pair<const char*, NumberType> kTypes[] = {
      {"'<f4'", NumberType::kF32}, {"'<f8'", NumberType::kF64}, {"'|u1'", NumberType::kU8},
      {"'|i1'", NumberType::kI8},  {"'<u2'", NumberType::kU16}, {"'<i2'", NumberType::kI16},
      {"'<u4'", NumberType::kU32}, {"'<i4'", NumberType::kI32}, {"'<u8'", NumberType::kU64},
      {"'<i8'", NumberType::kI64}, {"'|b1'", NumberType::kI8},
  };
  for (const auto& [name, type] : kTypes) {
    if (descr == name) return type;
  }
  return std::nullopt;
}

std::optional<std::vector<std::uint64_t>> shape_of(std::string_view text) {
  std::vector<std::uint64_t> shape;
  text.remove_prefix(1);  // the bracket
  while (true) {
    const std::size_t begin = text.find_first_not_of(", ");
    if (begin == std::string_view::npos) return shape;
    text.remove_prefix(begin);
    std::uint64_t size = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), size);
    if (parsed.ec != std::errc()) return std::nullopt;
    shape.push_back(size);
    text.remove_prefix(static_cast<std::size_t>(parsed.ptr - text.data()));
  }
}

Result<void> parse_header(const std::string& header, NpyArray& array) {
  const std::optional<std::string> descr = value_of(header, "descr");
  const std::optional<std::string> order = value_of(header, "fortran_order");
  const std::optional<std::string> shape = value_of(header, "shape");
  if (!descr || !order || !shape || !shape->starts_with('(')) {
    return wrong(array.path, "its header is not NumPy's");
  }
  if (*order != "False") return wrong(array.path, "in Fortran order; numpy.ascontiguousarray makes C order");
  const std::optional<NumberType> type = type_of(*descr);
  if (descr->find("O") != std::string::npos) {
    return wrong(array.path, "has Python objects (pickles); save it as numbers, with astype('float32')");
  }
  if (!type) {
    return wrong(array.path,
                 "has values of type " + *descr + "; little-endian numbers of up to 8 bytes can be read");
  }
  array.type = *type;
  const std::optional<std::vector<std::uint64_t>> sizes = shape_of(*shape);
  if (!sizes) return wrong(array.path, "its header is not NumPy's");
  if (sizes->empty()) return wrong(array.path, "is a single number");
  array.shape = *sizes;
  return ok();
}

// The product of the sizes times the bytes of a number is what the file holds behind its header.
Result<void> check_size(const NpyArray& array, std::uint64_t file_bytes) {
  if (std::ranges::count(array.shape, 0U) > 0)
    return wrong(array.path, "there are no rows, or no values in them");
  const std::uint64_t have = file_bytes - array.data_start;
  std::uint64_t bytes = bytes_of(array.type);
  for (const std::uint64_t size : array.shape) {
    if (bytes > have / size) return wrong(array.path, "is cut off");
    bytes *= size;
  }
  if (bytes < have) return wrong(array.path, "is longer than its header says");
  if (bytes > have) return wrong(array.path, "is cut off");
  return ok();
}

bool is_absent(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) != 0 && errno == ENOENT;
}

Result<NpyArray> open_array(const std::string& path) {
  if (is_absent(path)) return Error(Errc::kNotFound, path + ": numpy.save makes one");
  NpyArray array;
  array.path = path;
  GRADFS_TRY(UniqueFd fd, open_file(path, O_RDONLY));
  array.fd = std::make_shared<UniqueFd>(std::move(fd));
  struct stat status{};
  if (::fstat(array.fd->get(), &status) != 0) return errno_error(path);
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  std::string preamble(kPreamble + sizeof(std::uint32_t), '\0');
  if (file_bytes < preamble.size()) return wrong(path, "is no .npy file, or cut off");
  GRADFS_TRYV(read_fully_at(array.fd->get(), std::as_writable_bytes(std::span(preamble)), 0));
  if (!preamble.starts_with(kMagic)) return wrong(path, "is no .npy file: it does not begin with \\x93NUMPY");
  const char major = preamble[kMagic.size()];
  if (major < 1 || major > 3) return wrong(path, "has version " + std::to_string(major) + " of the format");
  std::uint32_t length = 0;
  const std::size_t length_bytes = major == 1 ? sizeof(std::uint16_t) : sizeof length;
  std::memcpy(&length, preamble.data() + kPreamble, length_bytes);
  array.data_start = kPreamble + length_bytes + length;
  if (length > kHeaderMax || array.data_start > file_bytes) return wrong(path, "is cut off in its header");
  std::string header(length, '\0');
  GRADFS_TRYV(
      read_fully_at(array.fd->get(), std::as_writable_bytes(std::span(header)), kPreamble + length_bytes));
  GRADFS_TRYV(parse_header(header, array));
  GRADFS_TRYV(check_size(array, file_bytes));
  return array;
}

double number_at(NumberType type, const std::byte* from) {
  const auto read = [&]<class Number>(Number number) {
    std::memcpy(&number, from, sizeof number);
    return static_cast<double>(number);
  };
  switch (type) {
    case NumberType::kF32:
      return read(0.0F);
    case NumberType::kF64:
      return read(0.0);
    case NumberType::kU8:
      return read(std::uint8_t{});
    case NumberType::kI8:
      return read(std::int8_t{});
    case NumberType::kU16:
      return read(std::uint16_t{});
    case NumberType::kI16:
      return read(std::int16_t{});
    case NumberType::kU32:
      return read(std::uint32_t{});
    case NumberType::kI32:
      return read(std::int32_t{});
    case NumberType::kU64:
      return read(std::uint64_t{});
    case NumberType::kI64:
      return read(std::int64_t{});
  }
  return 0;
}

Result<std::shared_ptr<const std::vector<std::uint8_t>>> read_labels(const NpyArray& array) {
  if (array.row_numbers() != 1) {
    return wrong(array.path, "has more than one number for each row; a label is one");
  }
  if (array.shape[0] > kRowsMax)
    return wrong(array.path, "has more than " + std::to_string(kRowsMax) + " rows");
  const std::size_t width = bytes_of(array.type);
  std::vector<std::byte> chunk;
  auto labels = std::make_shared<std::vector<std::uint8_t>>(array.shape[0]);
  for (std::size_t row = 0; row < labels->size(); ++row) {
    if (row % kChunkRows == 0) {
      chunk.resize(std::min(kChunkRows, labels->size() - row) * width);
      GRADFS_TRYV(read_fully_at(array.fd->get(), chunk, array.data_start + row * width));
    }
    const double value = number_at(array.type, chunk.data() + row % kChunkRows * width);
    if (!(value >= 0 && value <= kLabelMax && value == std::floor(value))) {
      return wrong(array.path, "row " + std::to_string(row) + ": a label is a whole number from 0 to 255");
    }
    (*labels)[row] = static_cast<std::uint8_t>(value);
  }
  return std::shared_ptr<const std::vector<std::uint8_t>>(std::move(labels));
}

Result<RowFile> open_part(const std::string& directory, const std::string& part) {
  GRADFS_TRY(const NpyArray x, open_array(directory + "/x_" + part + ".npy"));
  GRADFS_TRY(const NpyArray y, open_array(directory + "/y_" + part + ".npy"));
  if (x.shape.size() < 2)
    return wrong(x.path, "has one dimension; it must be rows of features: reshape(-1, 1)");
  if (x.shape[0] != y.shape[0]) {
    return wrong(x.path, "has " + std::to_string(x.shape[0]) + " rows, " + y.path + " has " +
                             std::to_string(y.shape[0]));
  }
  RowFile file;
  file.fd = x.fd;
  file.path = x.path;
  file.data_start = x.data_start;
  file.type = x.type;
  file.features = x.row_numbers();
  GRADFS_TRY(file.labels, read_labels(y));
  return file;
}

}  // namespace

Result<Dataset> load_npy(const std::string& directory) {
  Dataset out;
  out.name = "npy";
  GRADFS_TRY(RowFile train, open_part(directory, "train"));
  if (is_absent(directory + "/x_test.npy") && is_absent(directory + "/y_test.npy")) {
    GRADFS_TRY(out.train, open_row_file(train, RowChoice::kTraining));
    GRADFS_TRY(out.test, open_row_file(std::move(train), RowChoice::kTesting));
    return out;
  }
  GRADFS_TRY(RowFile test, open_part(directory, "test"));
  if (test.features != train.features) {
    return wrong(test.path, "has " + std::to_string(test.features) + " values in a row, " + train.path +
                                " has " + std::to_string(train.features));
  }
  GRADFS_TRY(out.train, open_row_file(std::move(train), RowChoice::kAll));
  GRADFS_TRY(out.test, open_row_file(std::move(test), RowChoice::kAll));
  return out;
}

}  // namespace gradfs::trainer
