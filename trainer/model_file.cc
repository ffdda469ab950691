#include "trainer/model_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "fs/base/check.h"

namespace gradfs::trainer {
namespace {

constexpr std::uint64_t kHeaderBytesMax = 100'000'000;
constexpr std::uint64_t kParametersMax = std::uint64_t{1} << 40;
constexpr const char* kModelName = "model.safetensors";

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

Error invalid(const std::string& why) { return Error(Errc::kInvalid, why); }

// One entry of the header. Throws nlohmann::json::exception for a wrong type.
Result<ModelTensor> read_tensor(const std::string& name, const nlohmann::json& entry) {
  if (entry.at("dtype").get<std::string>() != "F32") return invalid("tensor " + name + " is not F32");
  ModelTensor tensor{name, entry.at("shape").get<std::vector<std::uint64_t>>(), 0, 1};
  for (const std::uint64_t side : tensor.shape) {
    if (side == 0 || side > kParametersMax / tensor.count)
      return invalid("tensor " + name + " has a strange shape");
    tensor.count *= side;
  }
  const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
  if (offsets.size() != 2 || offsets[0] % sizeof(float) != 0 || offsets[1] < offsets[0] ||
      offsets[1] - offsets[0] != tensor.count * sizeof(float)) {
    return invalid("tensor " + name + " has strange offsets");
  }
  tensor.offset = offsets[0] / sizeof(float);
  return tensor;
}

// "fc12" is ("fc", 12); a name without digits at its end has the number 0.
std::pair<std::string, std::uint64_t> split_number(const std::string& name) {
  std::size_t digits = name.size();
  while (digits > 0 && name.size() - digits < 9 && name[digits - 1] >= '0' && name[digits - 1] <= '9')
    --digits;
  const std::string number = name.substr(digits);
  return {name.substr(0, digits), number.empty() ? 0 : std::stoull(number)};
}

std::optional<std::string> read_attribute(int fd, const char* name) {
  char value[256];
  const ssize_t size = ::fgetxattr(fd, name, value, sizeof value);
  if (size < 0) return std::nullopt;
  return std::string(value, static_cast<std::size_t>(size));
}

std::optional<nlohmann::json> read_status(const std::string& directory) {
  Result<std::string> text = read_text_file(directory + "/status.json");
  if (!text) return std::nullopt;
  nlohmann::json status = nlohmann::json::parse(text.value(), nullptr, false);
  if (!status.is_object()) return std::nullopt;
  return status;
}

}  // namespace

std::uint64_t ModelLayout::parameters() const noexcept {
  return tensors.empty() ? 0 : tensors.back().offset + tensors.back().count;
}

Result<ModelLayout> parse_model_header(std::string_view header, std::uint64_t data_start,
                                       std::uint64_t file_bytes) {
  ModelLayout layout;
  layout.data_start = data_start;
  try {
    const nlohmann::json parsed = nlohmann::json::parse(header);
    if (!parsed.is_object()) return invalid("its header is not a JSON object");
    for (const auto& [name, entry] : parsed.items()) {
      if (name == "__metadata__") continue;
      GRADFS_TRY(ModelTensor tensor, read_tensor(name, entry));
      layout.tensors.push_back(std::move(tensor));
    }
  } catch (const nlohmann::json::exception&) {
    return invalid("its header cannot be read as safetensors");
  }
  if (layout.tensors.empty()) return invalid("it has no tensors");
  std::ranges::sort(layout.tensors, {}, &ModelTensor::offset);
  std::uint64_t end = 0;
  for (const ModelTensor& tensor : layout.tensors) {
    if (tensor.offset != end) return invalid("its tensors leave a hole or overlap at " + tensor.name);
    end += tensor.count;
    if (end > kParametersMax) return invalid("it has too many parameters");
  }
  if (data_start + end * sizeof(float) != file_bytes) return invalid("its size is not what its header says");
  return layout;
}

Result<std::vector<DenseLayer>> deduce_layers(const ModelLayout& layout) {
  std::map<std::string, const ModelTensor*> by_name;
  for (const ModelTensor& tensor : layout.tensors) by_name[tensor.name] = &tensor;
  std::vector<std::pair<std::pair<std::string, std::uint64_t>, DenseLayer>> found;
  for (const ModelTensor& weight : layout.tensors) {
    if (!weight.name.ends_with(".weight")) continue;
    const std::string stem = weight.name.substr(0, weight.name.size() - std::strlen(".weight"));
    const auto bias = by_name.find(stem + ".bias");
    if (weight.shape.size() != 2)
      return invalid("tensor " + weight.name + " is not that of a fully connected layer");
    if (bias == by_name.end()) return invalid("there is " + weight.name + ", but no " + stem + ".bias");
    if (bias->second->shape != std::vector{weight.shape[0]}) {
      return invalid(bias->first + " does not fit " + weight.name);
    }
    found.push_back(
        {split_number(stem), {weight.shape[1], weight.shape[0], weight.offset, bias->second->offset}});
    by_name.erase(weight.name);
    by_name.erase(bias);
  }
  if (!by_name.empty()) {
    return invalid("tensor " + by_name.begin()->first + " is not that of a fully connected layer");
  }
  std::ranges::sort(found, {}, [](const auto& one) { return std::tuple(one.first.second, one.first.first); });
  std::vector<DenseLayer> layers;
  for (const auto& [name, layer] : found) {
    if (!layers.empty() && layers.back().outputs != layer.inputs) {
      return invalid("layer " + name.first + std::to_string(name.second) + " takes " +
                     std::to_string(layer.inputs) + " values, the one before gives " +
                     std::to_string(layers.back().outputs));
    }
    layers.push_back(layer);
  }
  return layers;
}

Result<ModelFile> ModelFile::open(const std::string& model_directory) {
  ModelFile file;
  file.directory_ = model_directory;
  const std::string path = model_directory + "/" + kModelName;
  Result<UniqueFd> fd = open_file(path, O_RDONLY);
  if (!fd) {
    std::string detail = path;
    if (fd.error().code == Errc::kNotFound) detail += ": not a model directory; fsctl model create makes one";
    return Error(fd.error().code, std::move(detail));
  }
  file.fd_ = std::move(fd.value());
  struct stat status{};
  if (::fstat(file.fd_.get(), &status) != 0) return errno_error(path);
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  std::uint64_t length = 0;
  if (file_bytes < sizeof length) return invalid(path + ": too short for a model");
  GRADFS_TRYV(read_fully_at(file.fd_.get(), std::as_writable_bytes(std::span(&length, 1)), 0));
  if (length > kHeaderBytesMax || length > file_bytes - sizeof length)
    return invalid(path + ": not a safetensors file");
  std::string header(length, ' ');
  GRADFS_TRYV(read_fully_at(file.fd_.get(), std::as_writable_bytes(std::span(header)), sizeof length));
  Result<ModelLayout> layout = parse_model_header(header, sizeof length + length, file_bytes);
  if (!layout) return invalid(path + ": " + layout.error().detail);
  file.layout_ = std::move(layout.value());
  if (file.layout_.data_start % sizeof(float) != 0) return invalid(path + ": its data is not aligned");
  file.inode_ = status.st_ino;
  const nlohmann::json json = nlohmann::json::parse(header, nullptr, false);
  if (const auto own = json.find("__metadata__"); own != json.end() && own->is_object()) {
    for (const auto& [key, value] : own->items()) {
      if (value.is_string()) file.metadata_[key] = value.get<std::string>();
    }
  }
  GRADFS_TRY(Mapping map, Mapping::map(file.fd_, file_bytes, false));
  file.map_ = std::move(map);
  return file;
}

std::span<const float> ModelFile::parameters() const noexcept {
  return {reinterpret_cast<const float*>(map_.data() + layout_.data_start), layout_.parameters()};
}

Result<std::string> ModelFile::header() const {
  std::string text(layout_.data_start, '\0');
  GRADFS_TRYV(read_fully_at(fd_.get(), std::as_writable_bytes(std::span(text)), 0));
  return text;
}

std::string ModelFile::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? "" : found->second;
}

Result<std::string> with_metadata(const std::string& header,
                                  const std::map<std::string, std::string>& metadata) {
  std::uint64_t length = 0;
  nlohmann::ordered_json json;
  if (header.size() > sizeof length) {
    json = nlohmann::ordered_json::parse(header.substr(sizeof length), nullptr, false);
  }
  if (!json.is_object()) return invalid("not the header of a safetensors file");
  json["__metadata__"] = metadata;
  std::string text = json.dump();
  const std::uint64_t whole = sizeof length + text.size();
  length = (whole + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment - sizeof length;
  text.resize(length, ' ');
  std::string out(sizeof length, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + text;
}

std::optional<std::uint64_t> ModelFile::version() const {
  const std::optional<std::string> text = read_attribute(fd_.get(), "user.gradfs.version");
  if (!text) return std::nullopt;
  std::uint64_t value = 0;
  if (std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc{})
    return std::nullopt;
  return value;
}

std::optional<std::uint64_t> ModelFile::version_or_status() const {
  if (const std::optional<std::uint64_t> value = version()) return value;
  const std::optional<nlohmann::json> status = read_status(directory_);
  if (!status || !status->contains("version") || !(*status)["version"].is_number_unsigned())
    return std::nullopt;
  return (*status)["version"].get<std::uint64_t>();
}

std::string ModelFile::optimizer_or_status() const {
  if (std::optional<std::string> text = read_attribute(fd_.get(), "user.gradfs.optimizer")) return *text;
  const std::optional<nlohmann::json> status = read_status(directory_);
  if (!status || !status->contains("optimizer") || !(*status)["optimizer"].is_string()) return "";
  return (*status)["optimizer"].get<std::string>();
}

GradientHeader::GradientHeader(const ModelLayout& layout, std::string run, std::string worker)
    : run_(std::move(run)), worker_(std::move(worker)), data_bytes_(layout.parameters() * sizeof(float)) {
  for (const ModelTensor& tensor : layout.tensors) {
    const std::uint64_t begin = tensor.offset * sizeof(float);
    const nlohmann::json entry = {{"dtype", "F32"},
                                  {"shape", tensor.shape},
                                  {"data_offsets", {begin, begin + tensor.count * sizeof(float)}}};
    tensors_ += "," + nlohmann::json(tensor.name).dump() + ":" + entry.dump();
  }
  constexpr std::uint64_t kLargest = std::numeric_limits<std::uint64_t>::max();
  const std::size_t longest =
      sizeof(std::uint64_t) + json({run_, worker_, kLargest, kLargest, -1.23456789e-300}).size();
  bytes_ = (longest + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment;
}

std::string GradientHeader::json(const GradientNote& note) const {
  nlohmann::json metadata = {{"run", note.run}, {"worker", note.worker}, {"step", std::to_string(note.step)}};
  if (note.base_version) metadata["base_version"] = std::to_string(*note.base_version);
  if (std::isfinite(note.loss)) {
    char loss[32];
    std::snprintf(loss, sizeof loss, "%.8g", note.loss);
    metadata["loss"] = loss;
  }
  return "{\"__metadata__\":" + metadata.dump() + tensors_ + "}";
}

std::string GradientHeader::render(std::uint64_t step, std::optional<std::uint64_t> base_version,
                                   double loss) const {
  std::string text = json({run_, worker_, step, base_version, loss});
  const std::uint64_t length = bytes_ - sizeof(std::uint64_t);
  GRADFS_CHECK(text.size() <= length);
  text.resize(length, ' ');
  std::string out(sizeof length, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + text;
}

}  // namespace gradfs::trainer
