#include "trainer/peers/peer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "trainer/peers/updater.h"

namespace gradfs::trainer {

Result<PeerModel> open_peer_model(const ExchangeOptions& options) {
  PeerModel model;
  GRADFS_TRY(const ModelFile file, ModelFile::open(options.model_directory));
  Result<std::vector<DenseLayer>> layers = deduce_layers(file.layout());
  if (!layers) return Error(layers.error().code, options.model_directory + ": " + layers.error().detail);
  model.layers = std::move(layers.value());
  model.layout = file.layout();
  GRADFS_TRY(model.header, file.header());
  model.is_bound = file.version().has_value();
  GRADFS_TRY(model.config, choose_config(options));
  GRADFS_TRY(model.parameters, FloatArray::make_shared(model.layout.parameters()));
  std::ranges::copy(file.parameters(), model.parameters.data());
  return model;
}

Result<void> write_model_file(const std::string& path, const std::string& header,
                              std::span<const float> parameters) {
  GRADFS_TRY(const UniqueFd fd, open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  Result<void> written = write_fully_at(fd.get(), std::as_bytes(std::span(header)), 0);
  if (written) written = write_fully_at(fd.get(), std::as_bytes(parameters), header.size());
  if (written) return ok();
  ::unlink(path.c_str());
  return Error(written.error().code, path + ": " + written.error().detail);
}

std::size_t update_threads(std::size_t updaters) {
  const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
  return std::max<std::size_t>(1, processors / std::max<std::size_t>(1, updaters));
}

Peer::Peer(const ExchangeOptions& options, PeerModel model)
    : options_(options), model_(std::move(model)), observer_(model_.parameters) {}

std::optional<std::uint64_t> Peer::version() const { return options_.control->version.load(); }

std::string Peer::optimizer() const { return std::string(to_text(model_.config.optimizer)); }

Result<void> Peer::finish() {
  if (options_.control->version.load() == 0) return ok();
  const std::string path = options_.model_directory + "/model.safetensors";
  const std::string temporary = options_.model_directory + "/.model-" + options_.run + ".tmp";
  GRADFS_TRY(const std::span<const float> parameters, observer().current());
  GRADFS_TRYV(write_model_file(temporary, model_.header, parameters));
  if (::rename(temporary.c_str(), path.c_str()) == 0) return ok();
  Error error = errno_error(path);
  ::unlink(temporary.c_str());
  return error;
}

}  // namespace gradfs::trainer
