// A directory that looks like a model's, on an ordinary filesystem: every fsync and close succeeds, nothing
// learns.
#pragma once

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fs/base/check.h"
#include "tests/trainer/local_architecture.h"

namespace gradfs::trainer {

class ModelDirectory {
 public:
  explicit ModelDirectory(const std::vector<std::size_t>& widths) {
    std::string pattern = std::filesystem::temp_directory_path() / "gradfs-model-XXXXXX";
    GRADFS_CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    for (const char* name : {"slots", "gradients"}) std::filesystem::create_directory(path_ + "/" + name);
    const std::vector<DenseLayer> layers = chain(widths);
    std::vector<float> parameters(parameter_count(layers));
    initialise(layers, 1, parameters.data());
    std::string json = "{";
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string stem = "\"fc" + std::to_string(i + 1);
      const std::string outputs = std::to_string(layers[i].outputs);
      json += i == 0 ? "" : ",";
      json += stem + ".weight\":" +
              entry(outputs + "," + std::to_string(layers[i].inputs), layers[i].weight_offset,
                    layers[i].bias_offset);
      json += "," + stem +
              ".bias\":" + entry(outputs, layers[i].bias_offset, layers[i].bias_offset + layers[i].outputs);
    }
    json += "}";
    json.resize(4096 - 8, ' ');
    const std::string data(reinterpret_cast<const char*>(parameters.data()),
                           parameters.size() * sizeof(float));
    write_model(json, data);
    std::ofstream(path_ + "/status.json") << R"({"version": 42, "optimizer": "adam"})";
  }
  ~ModelDirectory() { std::filesystem::remove_all(path_); }
  ModelDirectory(const ModelDirectory&) = delete;
  ModelDirectory& operator=(const ModelDirectory&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  void write_model(const std::string& json, const std::string& data) const {
    const std::uint64_t length = json.size();
    std::ofstream out(path_ + "/model.safetensors", std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
    out << json << data;
  }
  [[nodiscard]] std::size_t files_in(const std::string& name) const {
    const auto all = std::filesystem::directory_iterator(path_ + "/" + name);
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

 private:
  static std::string entry(const std::string& shape, std::size_t begin, std::size_t end) {
    return R"({"dtype":"F32","shape":[)" + shape + R"(],"data_offsets":[)" + std::to_string(4 * begin) + "," +
           std::to_string(4 * end) + "]}";
  }
  std::string path_;
};

}  // namespace gradfs::trainer
