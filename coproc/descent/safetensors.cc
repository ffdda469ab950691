#include "coproc/descent/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "fs/base/fd.h"

namespace gradfs {
namespace {

struct DtypeRow {
  std::string_view text;
  std::uint64_t bytes;
};
constexpr std::array<DtypeRow, 16> kDtypes{{{"BOOL", 1},
                                            {"U8", 1},
                                            {"I8", 1},
                                            {"F8_E5M2", 1},
                                            {"F8_E4M3", 1},
                                            {"F8_E8M0", 1},
                                            {"I16", 2},
                                            {"U16", 2},
                                            {"F16", 2},
                                            {"BF16", 2},
                                            {"I32", 4},
                                            {"U32", 4},
                                            {"F32", 4},
                                            {"F64", 8},
                                            {"I64", 8},
                                            {"U64", 8}}};
static_assert(kDtypes.size() == static_cast<std::size_t>(Dtype::kU64) + 1);

std::optional<Dtype> dtype_from_text(std::string_view text) {
  for (std::size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].text == text) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

Error invalid(std::string detail) { return {Errc::kInvalid, "safetensors: " + std::move(detail)}; }

// A name from a file, fit for a line of text.
std::string in_quotes(std::string_view name) {
  constexpr std::size_t kLengthMax = 120;
  return nlohmann::json(std::string(name.substr(0, kLengthMax)))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Receives the events of nlohmann's SAX parser and accepts exactly the grammar of a header:
// {"__metadata__": {string: string}, NAME: {"dtype": string, "shape": [whole], "data_offsets": [whole,
// whole]}}
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<TensorEntry> tensors;
  Metadata metadata;
  std::string error;

  bool null() override { return fail("a null is not allowed"); }
  bool boolean(bool) override { return fail("true and false are not allowed"); }
  bool number_integer(number_integer_t) override { return fail(where() + " has a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return fail(where() + " has a number that is not whole");
  }
  bool binary(binary_t&) override { return fail("binary values are not allowed"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (entry_.shape.size() >= kDimensionsMax) return fail(where() + " has too many dimensions");
      entry_.shape.push_back(value);
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offsets_ >= 2) return fail(where() + " must be two numbers");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return fail(where() + " must not be a number");
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      metadata[key_] = value;
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return fail(where() + " must not be a string");
    const auto dtype = dtype_from_text(value);
    if (!dtype)
      return fail("tensor " + in_quotes(entry_.name) + " has the unknown dtype " + in_quotes(value));
    entry_.dtype = *dtype;
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
    } else if (place_ == Place::kTop && key_ == "__metadata__") {
      place_ = Place::kMetadata;
    } else if (place_ == Place::kTop) {
      place_ = Place::kTensor;
      entry_ = TensorEntry{};
      entry_.name = key_;
      seen_dtype_ = seen_shape_ = seen_offsets_ = false;
      offsets_ = 0;
    } else {
      return fail(where() + " must not be an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (!seen_dtype_ || !seen_shape_ || !seen_offsets_) {
        return fail("tensor " + in_quotes(entry_.name) + " needs dtype, shape and data_offsets");
      }
      tensors.push_back(std::move(entry_));
    }
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && key_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return fail(where() + " must not be an array");
    }
    return true;
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_ != 2) return fail(where() + " must be two numbers");
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    key_ = name;
    if (place_ == Place::kTop) {
      return names_.insert(name).second || fail("the key " + in_quotes(name) + " occurs twice");
    }
    if (place_ == Place::kMetadata) {
      return metadata.emplace(name, "").second ||
             fail("the key " + in_quotes(name) + " of __metadata__ occurs twice");
    }
    bool* seen = name == "dtype"          ? &seen_dtype_
                 : name == "shape"        ? &seen_shape_
                 : name == "data_offsets" ? &seen_offsets_
                                          : nullptr;
    if (seen == nullptr)
      return fail("tensor " + in_quotes(entry_.name) + " has the unknown key " + in_quotes(name));
    if (*seen) return fail("tensor " + in_quotes(entry_.name) + " has " + name + " twice");
    *seen = true;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("the header is not JSON (byte " + std::to_string(position) + ")");
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  static constexpr std::size_t kDimensionsMax = 64;

  bool fail(std::string text) {
    if (error.empty()) error = std::move(text);
    return false;
  }
  [[nodiscard]] std::string where() const {
    switch (place_) {
      case Place::kMetadata:
        return "the key " + in_quotes(key_) + " of __metadata__";
      case Place::kTensor:
      case Place::kShape:
      case Place::kOffsets:
        return "tensor " + in_quotes(entry_.name) + ": " + in_quotes(key_);
      default:
        return key_.empty() ? "the header" : "the key " + in_quotes(key_);
    }
  }

  Place place_ = Place::kStart;
  std::string key_;
  TensorEntry entry_;
  bool seen_dtype_ = false, seen_shape_ = false, seen_offsets_ = false;
  int offsets_ = 0;
  std::unordered_set<std::string> names_;
};

// dtype, shape and length of each tensor agree; in the order of their offsets they fill the data exactly.
Result<void> check_offsets(std::vector<TensorEntry>& tensors, std::uint64_t data_bytes) {
  for (const TensorEntry& tensor : tensors) {
    const auto count = element_count(tensor.shape);
    std::uint64_t bytes = 0;
    if (!count || __builtin_mul_overflow(count.value(), dtype_bytes(tensor.dtype), &bytes)) {
      return invalid("tensor " + in_quotes(tensor.name) + " is larger than 64 bits can count");
    }
    if (tensor.end < tensor.begin || tensor.end > data_bytes) {
      return invalid("tensor " + in_quotes(tensor.name) + " lies outside of the file: data_offsets [" +
                     std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + "] of " +
                     std::to_string(data_bytes) + " bytes");
    }
    if (tensor.end - tensor.begin != bytes) {
      return invalid("tensor " + in_quotes(tensor.name) + " has " +
                     std::to_string(tensor.end - tensor.begin) + " bytes, but " +
                     std::string(to_text(tensor.dtype)) + " " + to_text(tensor.shape) + " needs " +
                     std::to_string(bytes));
    }
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t position = 0;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.begin != position) {
      return invalid(std::string(tensor.begin < position ? "an overlap" : "a hole") + " before tensor " +
                     in_quotes(tensor.name));
    }
    position = tensor.end;
  }
  if (position != data_bytes) {
    return invalid("the file has " + std::to_string(data_bytes) + " bytes of data, its tensors " +
                   std::to_string(position));
  }
  return ok();
}

}  // namespace

std::string_view to_text(Dtype dtype) noexcept { return kDtypes[static_cast<std::size_t>(dtype)].text; }
std::uint64_t dtype_bytes(Dtype dtype) noexcept { return kDtypes[static_cast<std::size_t>(dtype)].bytes; }

std::string to_text(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return out + "]";
}

Result<std::uint64_t> element_count(const Shape& shape) {
  std::uint64_t count = 1;
  for (const std::uint64_t dimension : shape) {
    if (__builtin_mul_overflow(count, dimension, &count))
      return Error(Errc::kInvalid, "a shape overflows 64 bits");
  }
  return count;
}

Result<SafetensorsHeader> parse_safetensors(std::string_view json, std::uint64_t file_bytes) {
  if (json.size() > kSafetensorsHeaderMax) return invalid("the header is longer than 100,000,000 bytes");
  if (file_bytes < 8 + json.size()) return invalid("the header does not fit into the file");
  if (json.empty() || json.front() != '{') return invalid("the header does not begin with '{'");
  SafetensorsHeader out;
  out.data_start = 8 + json.size();
  out.data_bytes = file_bytes - out.data_start;
  while (json.back() == ' ') json.remove_suffix(1);
  // The JSON library takes a zero byte for the end, and other white space for padding.
  if (json.back() != '}' || json.find('\0') != json.npos)
    return invalid("the header does not end with '}' and spaces");
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    return invalid(reader.error.empty() ? "the header is not JSON" : reader.error);
  }
  out.tensors = std::move(reader.tensors);
  out.metadata = std::move(reader.metadata);
  GRADFS_TRYV(check_offsets(out.tensors, out.data_bytes));
  return out;
}

Result<SafetensorsHeader> read_safetensors(int fd) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return errno_error("fstat");
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  if (file_bytes == 0) return invalid("the file is empty");
  if (file_bytes < 8) return invalid("the file is shorter than 8 bytes");
  std::array<std::uint8_t, 8> prefix{};
  GRADFS_TRYV(read_fully_at(fd, std::as_writable_bytes(std::span(prefix)), 0));
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | prefix[i];
  if (length > kSafetensorsHeaderMax) {
    return invalid("the header's length is " + std::to_string(length) +
                   ", above 100,000,000: not a safetensors file?");
  }
  if (length > file_bytes - 8) {
    return invalid("the header's length is " + std::to_string(length) + ", but the file has " +
                   std::to_string(file_bytes) + " bytes");
  }
  std::string json(length, '\0');
  GRADFS_TRYV(read_fully_at(fd, std::as_writable_bytes(std::span(json)), 8));
  return parse_safetensors(json, file_bytes);
}

Result<std::string> format_safetensors(std::span<const TensorEntry> tensors, const Metadata& metadata,
                                       std::uint64_t alignment) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  std::unordered_set<std::string_view> names{"__metadata__"};
  std::uint64_t position = 0;
  for (const TensorEntry& tensor : tensors) {
    if (!names.insert(tensor.name).second) return invalid("two tensors are named " + in_quotes(tensor.name));
    GRADFS_TRY(const std::uint64_t count, element_count(tensor.shape));
    std::uint64_t bytes = 0;
    std::uint64_t end = 0;
    if (__builtin_mul_overflow(count, dtype_bytes(tensor.dtype), &bytes) ||
        __builtin_add_overflow(position, bytes, &end)) {
      return invalid("the tensors are larger than 64 bits can count");
    }
    // push_back of a pair would search for the key each time: names are known to be unique here.
    nlohmann::ordered_json entry = {
        {"dtype", to_text(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {position, end}}};
    static_cast<nlohmann::ordered_json::object_t&>(json.get_ref<nlohmann::ordered_json::object_t&>())
        .std::vector<std::pair<const std::string, nlohmann::ordered_json>>::emplace_back(tensor.name,
                                                                                         std::move(entry));
    position = end;
  }
  std::string text;
  try {
    text = json.dump();
  } catch (const nlohmann::json::exception&) {
    return invalid("a name or a metadata string is not UTF-8");
  }
  const std::uint64_t padding = (alignment - (8 + text.size()) % alignment) % alignment;
  text.append(padding, ' ');
  if (text.size() > kSafetensorsHeaderMax)
    return invalid("the header would be longer than 100,000,000 bytes");
  std::string out(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return out + text;
}

}  // namespace gradfs
