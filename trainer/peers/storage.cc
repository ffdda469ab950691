#include "trainer/peers/storage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "fs/base/clock.h"
#include "trainer/peers/peer.h"
#include "trainer/peers/tcp.h"
#include "trainer/peers/updater.h"

namespace gradfs::trainer {
namespace {

constexpr std::int64_t kLookFirst_ns = 50'000;
constexpr std::int64_t kLookLongest_ns = 2 * kMillisecond_ns;
constexpr std::int64_t kLookShare = 50;  // a look late by at most a fiftieth of the wait
constexpr std::size_t kPage = 4096;

// Pauses between looks for a file.
class Patience {
 public:
  // kTimeout after the longest that a peer may take.
  Result<void> pause(const std::string& what) {
    const std::int64_t waited_ns = real_now_ns() - began_ns_;
    if (waited_ns > kPeerWait_s * kSecond_ns) {
      return Error(Errc::kTimeout, what + " does not appear for " + std::to_string(kPeerWait_s) + " s");
    }
    const std::int64_t pause_ns = std::clamp(waited_ns / kLookShare, kLookFirst_ns, kLookLongest_ns);
    std::this_thread::sleep_for(std::chrono::nanoseconds(pause_ns));
    return ok();
  }

 private:
  const std::int64_t began_ns_ = real_now_ns();
};

std::string model_path(const ExchangeOptions& options) {
  return options.model_directory + "/model.safetensors";
}

std::string gradient_stem(const ExchangeOptions& options, std::size_t worker) {
  return options.run + "-w" + std::to_string(worker);
}

std::string gradient_path(const ExchangeOptions& options, std::size_t worker, std::uint64_t step) {
  return options.model_directory + "/gradients/" + gradient_stem(options, worker) + "-" +
         std::to_string(step) + ".safetensors";
}

// Writes NAME's content to a file beside it, and renames that.
Result<void> publish(const std::string& directory, const std::string& name, const std::string& header,
                     std::span<const float> values) {
  const std::string temporary = directory + "/." + name + ".tmp";
  GRADFS_TRYV(write_model_file(temporary, header, values));
  if (::rename(temporary.c_str(), (directory + "/" + name).c_str()) == 0) return ok();
  Error error = errno_error(directory + "/" + name);
  ::unlink(temporary.c_str());
  return error;
}

// A word of each page is read, so that all of it is there.
void touch(std::span<const float> values) {
  float sum = 0;
  for (std::size_t i = 0; i < values.size(); i += kPage / sizeof(float)) sum += values[i];
  asm volatile("" : : "r"(&sum) : "memory");
}

class StorageExchange final : public Exchange {
 public:
  StorageExchange(const ExchangeOptions& options, std::size_t worker, ModelFile model, FloatArray gradient)
      : options_(options),
        worker_(worker),
        model_(std::move(model)),
        header_(model_.layout(), options.run, "w" + std::to_string(worker)),
        gradient_(std::move(gradient)) {}

  Result<std::span<const float>> current() override { return model_.parameters(); }
  std::span<float> gradient() override { return gradient_.span(); }
  [[nodiscard]] std::uint64_t bytes_moved() const override { return bytes_moved_; }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    const std::string header = header_.render(step, std::nullopt, loss);
    const std::string path = gradient_path(options_, worker_, step);
    const std::size_t slash = path.rfind('/');
    GRADFS_TRYV(publish(path.substr(0, slash), path.substr(slash + 1), header, gradient_.span()));
    bytes_moved_ += gradient_.size() * sizeof(float);
    return read_model();
  }

 private:
  // The model of the next round.
  Result<PushOutcome> read_model() {
    const std::uint64_t before = version_;
    Patience patience;
    for (;;) {
      GRADFS_TRY(const bool is_new, look());
      if (is_new) break;
      if (options_.control->stop.load(std::memory_order_relaxed)) {
        return Error(Errc::kInterrupted, "the run is ending");
      }
      GRADFS_TRYV(patience.pause("version " + std::to_string(before + 1) + " of " + model_path(options_)));
    }
    touch(model_.parameters());
    bytes_moved_ += gradient_.size() * sizeof(float);
    const std::string refused = "," + model_.metadata("refused") + ",";
    const bool was_refused = refused.find("," + std::to_string(worker_) + ",") != std::string::npos;
    return was_refused ? PushOutcome::kRefused : PushOutcome::kCounted;
  }

  Result<bool> look() {
    struct stat status{};
    if (::stat(model_path(options_).c_str(), &status) != 0) return errno_error(model_path(options_));
    if (status.st_ino == model_.inode()) return false;
    GRADFS_TRY(ModelFile model, ModelFile::open(options_.model_directory));
    if (model.metadata("run") != options_.run) {
      return Error(Errc::kBusy, model_path(options_) + ": another program writes it too");
    }
    const std::string text = model.metadata("version");
    std::uint64_t version = 0;
    std::from_chars(text.data(), text.data() + text.size(), version);
    if (version <= version_) return false;
    version_ = version;
    model_ = std::move(model);
    return true;
  }

  const ExchangeOptions options_;
  const std::size_t worker_;
  ModelFile model_;
  const GradientHeader header_;
  FloatArray gradient_;
  std::uint64_t version_ = 0;
  std::uint64_t bytes_moved_ = 0;
};

class Driver {
 public:
  Driver(const ExchangeOptions& options, PeerModel& model, std::unique_ptr<Updater> updater)
      : options_(options), model_(model), updater_(std::move(updater)), present_(options.workers, true) {}

  // Rounds, until no worker is left.
  Result<void> run() {
    for (std::uint64_t round = 1;; ++round) {
      GRADFS_TRY(std::vector<Taken> gradients, gather(round));
      if (gradients.empty()) return ok();
      const std::string refused = step(gradients);
      const std::map<std::string, std::string> metadata = {
          {"run", options_.run}, {"version", std::to_string(round)}, {"refused", refused}};
      GRADFS_TRY(const std::string header, with_metadata(model_.header, metadata));
      GRADFS_TRYV(publish(options_.model_directory, "model.safetensors", header, model_.parameters.span()));
      for (const Taken& gradient : gradients) {
        ::unlink(gradient_path(options_, gradient.worker, round).c_str());
      }
    }
  }

 private:
  struct Taken {
    std::size_t worker;
    Mapping file;
    std::span<const float> values;
  };

  // The round's gradient of every worker that is not gone.
  Result<std::vector<Taken>> gather(std::uint64_t round) {
    std::vector<Taken> taken;
    for (std::size_t worker = 0; worker < present_.size(); ++worker) {
      Patience patience;
      const std::string path = gradient_path(options_, worker, round);
      while (present_[worker]) {
        // Before the look: what a worker wrote before it went still counts.
        const bool gone = options_.control->gone[worker].load(std::memory_order_acquire);
        Result<UniqueFd> fd = open_file(path, O_RDONLY);
        if (fd) {
          GRADFS_TRY(Taken gradient, map(worker, fd.value(), path));
          taken.push_back(std::move(gradient));
          break;
        }
        if (fd.error().code != Errc::kNotFound) return fd.error();
        if (gone) present_[worker] = false;
        if (!gone) {
          GRADFS_TRYV(patience.pause(path));
        }
      }
    }
    return taken;
  }

  Result<Taken> map(std::size_t worker, const UniqueFd& fd, const std::string& path) {
    const std::uint64_t bytes = model_.layout.parameters() * sizeof(float);
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return errno_error(path);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size <= bytes || size % kPage != bytes % kPage) {
      return Error(Errc::kInvalid, path + ": not as long as a gradient of this model");
    }
    GRADFS_TRY(Mapping file, Mapping::map(fd, size, false, true));
    const auto* values = reinterpret_cast<const float*>(file.data() + (size - bytes));
    return Taken{worker, std::move(file), std::span(values, model_.layout.parameters())};
  }

  // The numbers of the workers whose gradients are not finite, with commas between them.
  std::string step(const std::vector<Taken>& gradients) {
    std::vector<const float*> finite;
    std::string refused;
    for (const Taken& gradient : gradients) {
      if (updater_->is_finite(gradient.values)) {
        finite.push_back(gradient.values.data());
      } else {
        refused += (refused.empty() ? "" : ",") + std::to_string(gradient.worker);
      }
    }
    if (finite.empty()) return refused;
    updater_->apply(model_.parameters.span(), finite, 1.0F / static_cast<float>(finite.size()));
    options_.control->version.fetch_add(1);
    return refused;
  }

  const ExchangeOptions& options_;
  PeerModel& model_;
  std::unique_ptr<Updater> updater_;
  std::vector<bool> present_;
};

class Storage final : public Peer {
 public:
  using Peer::Peer;
  [[nodiscard]] std::string name() const override { return "storage"; }
  [[nodiscard]] std::string service() const override { return "driver"; }
  [[nodiscard]] bool works_through_files() const override { return true; }

  Result<void> prepare() override {
    const std::string directory = options_.model_directory + "/gradients";
    if (::mkdir(directory.c_str(), 0755) == 0) {
      made_directory_ = true;
      return ok();
    }
    return errno == EEXIST ? ok() : Result<void>(errno_error(directory));
  }

  Result<void> serve() override {
    GRADFS_TRY(std::unique_ptr<Updater> updater,
               Updater::make(model_.layout, model_.config, update_threads(1)));
    return Driver(options_, model_, std::move(updater)).run();
  }

  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    GRADFS_TRY(ModelFile model, ModelFile::open(options_.model_directory));
    GRADFS_TRY(FloatArray gradient, FloatArray::make_private(parameters()));
    return std::unique_ptr<Exchange>(
        std::make_unique<StorageExchange>(options_, worker, std::move(model), std::move(gradient)));
  }

  void clean_up(std::size_t workers) override {
    const std::string directory = options_.model_directory + "/gradients";
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
      const std::string name = entry.path().filename();
      if (name.starts_with(options_.run) || name.starts_with("." + options_.run))
        ::unlink(entry.path().c_str());
    }
    ::unlink((options_.model_directory + "/.model.safetensors.tmp").c_str());
    if (made_directory_) ::rmdir(directory.c_str());
  }

 private:
  bool made_directory_ = false;
};

}  // namespace

Result<std::unique_ptr<Architecture>> open_storage(const ExchangeOptions& options) {
  GRADFS_TRY(PeerModel model, open_peer_model(options));
  if (model.is_bound) {
    return Error(Errc::kInvalid, options.model_directory +
                                     ": gradients that land here are applied by the "
                                     "filesystem; storage needs a model made by fsctl model create --plain");
  }
  return std::unique_ptr<Architecture>(std::make_unique<Storage>(options, std::move(model)));
}

}  // namespace gradfs::trainer
