#include "trainer/coprocessor.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

namespace gradfs::trainer {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPauseFirst{5};
constexpr milliseconds kPauseLongest{1000};
constexpr milliseconds kPauseStep{50};  // how soon a stop is seen

bool stopped(const RunControl* control) {
  return control != nullptr && control->stop.load(std::memory_order_relaxed);
}

void pause(milliseconds duration, const RunControl* control) {
  while (duration.count() > 0 && !stopped(control)) {
    const milliseconds step = std::min(duration, kPauseStep);
    std::this_thread::sleep_for(step);
    duration -= step;
  }
}

std::string stem(const ExchangeOptions& options, std::size_t worker) {
  return options.run + "-w" + std::to_string(worker);
}

std::string slot_path(const ExchangeOptions& options, std::size_t worker) {
  return options.model_directory + "/slots/" + stem(options, worker) + ".safetensors";
}

// Reads the mapped model; a base for both pushers.
class MappedModel : public Exchange {
 public:
  MappedModel(const ExchangeOptions& options, std::size_t worker, ModelFile model)
      : options_(options),
        model_(std::move(model)),
        header_(model_.layout(), options.run, "w" + std::to_string(worker)),
        name_(stem(options, worker)) {}

  Result<std::span<const float>> current() override {
    base_version_ = model_.version();
    return model_.parameters();
  }

  // The gradient, which the filesystem reads; parameters are used where they lie.
  [[nodiscard]] std::uint64_t bytes_moved() const override {
    return pushes_ * model_.layout().parameters() * sizeof(float);
  }

 protected:
  const ExchangeOptions options_;
  ModelFile model_;
  const GradientHeader header_;
  const std::string name_;
  std::optional<std::uint64_t> base_version_;  // the parameters were read at this version or a later one
  std::uint64_t pushes_ = 0;
};

class SlotExchange final : public MappedModel {
 public:
  using MappedModel::MappedModel;
  ~SlotExchange() override {
    if (fd_) ::unlink(path_.c_str());
  }

  // Makes the slot with all its pages, so that a full filesystem says so here and not by SIGBUS.
  Result<void> create(const std::string& path) {
    path_ = path;
    GRADFS_TRY(UniqueFd fd, open_file(path, O_RDWR | O_CREAT | O_EXCL, 0644));
    fd_ = std::move(fd);
    const std::uint64_t bytes = header_.file_bytes();
    const std::string header = header_.render(0, std::nullopt, 0);
    private_.resize(model_.layout().parameters());
    Result<void> written = write_fully_at(fd_.get(), std::as_bytes(std::span(header)), 0);
    if (written) written = write_fully_at(fd_.get(), std::as_bytes(std::span(private_)), header_.bytes());
    if (!written) return Error(written.error().code, path + ": " + written.error().detail);
    if (Result<Mapping> map = Mapping::map(fd_, bytes, true); map) {
      map_ = std::move(map.value());
      private_ = {};
    }
    return ok();
  }

  std::span<float> gradient() override {
    if (map_.data() == nullptr) return private_;
    return {reinterpret_cast<float*>(map_.data() + header_.bytes()), model_.layout().parameters()};
  }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    ++pushes_;
    const std::string header = header_.render(step, base_version_, loss);
    GRADFS_TRYV(store(header));
    const auto attempt = [this] { return ::fsync(fd_.get()) == 0 ? 0 : errno; };
    return push_until_settled(attempt, path_, kPushRetry_ms, options_.control);
  }

 private:
  Result<void> store(const std::string& header) {
    if (map_.data() != nullptr) {
      std::memcpy(map_.data(), header.data(), header.size());
      return ok();
    }
    GRADFS_TRYV(write_fully_at(fd_.get(), std::as_bytes(std::span(header)), 0));
    return write_fully_at(fd_.get(), std::as_bytes(std::span(private_)), header_.bytes());
  }

  std::string path_;
  UniqueFd fd_;
  Mapping map_;                 // of the slot; empty where it cannot be mapped
  std::vector<float> private_;  // then the gradient is made here and written
};

class FileExchange final : public MappedModel {
 public:
  using MappedModel::MappedModel;

  Result<void> create() {
    gradient_.resize(model_.layout().parameters());
    return ok();
  }

  std::span<float> gradient() override { return gradient_; }

  Result<PushOutcome> push(std::uint64_t step, double loss) override {
    ++pushes_;
    const std::string header = header_.render(step, base_version_, loss);
    const std::string path = options_.model_directory + "/gradients/" + name_ + "-" + std::to_string(step);
    int tries = 0;
    const auto attempt = [&] {
      return push_file(path + "-" + std::to_string(++tries) + ".safetensors", header);
    };
    return push_until_settled(attempt, path, kPushRetry_ms, options_.control);
  }

 private:
  // 0 or the errno.
  int push_file(const std::string& path, const std::string& header) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return errno == EEXIST ? EAGAIN : errno;  // only the close's EEXIST is about the step
    Result<void> written = write_fully_at(fd, std::as_bytes(std::span(header)), 0);
    if (written) written = write_fully_at(fd, std::as_bytes(std::span(gradient_)), header.size());
    if (!written) {
      const int error = to_errno(written.error().code);
      ::unlink(path.c_str());  // before the close, so that no half gradient lands
      ::close(fd);
      return error;
    }
    return ::close(fd) == 0 ? 0 : errno;
  }

  std::vector<float> gradient_;
};

class Observer final : public ParameterSource {
 public:
  explicit Observer(ModelFile model) : model_(std::move(model)) {}
  Result<std::span<const float>> current() override { return model_.parameters(); }
  [[nodiscard]] const ModelFile& file() const noexcept { return model_; }

 private:
  ModelFile model_;
};

class Coprocessor final : public Architecture {
 public:
  Coprocessor(const ExchangeOptions& options, ModelFile model, std::vector<DenseLayer> layers)
      : options_(options), observer_(std::move(model)), layers_(std::move(layers)) {}

  [[nodiscard]] std::string name() const override { return "coprocessor"; }
  [[nodiscard]] bool is_asynchronous() const override { return true; }
  [[nodiscard]] const std::vector<DenseLayer>& layers() const override { return layers_; }
  [[nodiscard]] std::uint64_t parameters() const override { return observer_.file().layout().parameters(); }
  ParameterSource& observer() override { return observer_; }
  [[nodiscard]] std::optional<std::uint64_t> version() const override {
    return observer_.file().version_or_status();
  }
  [[nodiscard]] std::string optimizer() const override { return observer_.file().optimizer_or_status(); }
  [[nodiscard]] bool works_through_files() const override { return true; }

  Result<std::unique_ptr<Exchange>> make_exchange(std::size_t worker) override {
    GRADFS_TRY(ModelFile model, ModelFile::open(options_.model_directory));
    if (options_.push == PushKind::kFile) {
      auto exchange = std::make_unique<FileExchange>(options_, worker, std::move(model));
      GRADFS_TRYV(exchange->create());
      return std::unique_ptr<Exchange>(std::move(exchange));
    }
    auto exchange = std::make_unique<SlotExchange>(options_, worker, std::move(model));
    GRADFS_TRYV(exchange->create(slot_path(options_, worker)));
    return std::unique_ptr<Exchange>(std::move(exchange));
  }

  void clean_up(std::size_t workers) override {
    for (std::size_t worker = 0; worker < workers; ++worker) ::unlink(slot_path(options_, worker).c_str());
  }

 private:
  const ExchangeOptions options_;
  Observer observer_;
  const std::vector<DenseLayer> layers_;
};

}  // namespace

Result<std::unique_ptr<Architecture>> open_coprocessor(const ExchangeOptions& options) {
  if (options.optimizer || options.learning_rate) {
    return Error(Errc::kInvalid, "the filesystem takes the step here: set the optimizer and its rate in " +
                                     options.model_directory + "/descent.toml");
  }
  GRADFS_TRY(ModelFile model, ModelFile::open(options.model_directory));
  Result<std::vector<DenseLayer>> layers = deduce_layers(model.layout());
  if (!layers) return Error(layers.error().code, options.model_directory + ": " + layers.error().detail);
  return std::unique_ptr<Architecture>(
      std::make_unique<Coprocessor>(options, std::move(model), std::move(layers.value())));
}

PushVerdict judge_push(int error_number) noexcept {
  switch (error_number) {
    case 0:
    case EEXIST:
      return PushVerdict::kCounted;
    case ERANGE:
      return PushVerdict::kDropped;
    case EDOM:
      return PushVerdict::kRefused;
    case EINTR:
      return PushVerdict::kRetryNow;
    case EINVAL:
    case EDQUOT:
    case ENOSPC:
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case EROFS:
    case EBADF:
    case ENOTCONN:
      return PushVerdict::kFailed;
    default:
      return PushVerdict::kRetryLater;
  }
}

Result<PushOutcome> push_until_settled(const std::function<int()>& attempt, const std::string& what,
                                       std::int64_t limit_ms, const RunControl* control) {
  const auto deadline = Clock::now() + milliseconds(limit_ms);
  milliseconds wait = kPauseFirst;
  for (;;) {
    const int error_number = attempt();
    const PushVerdict verdict = judge_push(error_number);
    if (verdict == PushVerdict::kCounted) return PushOutcome::kCounted;
    if (verdict == PushVerdict::kDropped) return PushOutcome::kDropped;
    if (verdict == PushVerdict::kRefused) return PushOutcome::kRefused;
    const bool late = Clock::now() >= deadline;
    if (verdict == PushVerdict::kFailed || late || stopped(control)) {
      std::string reason = std::strerror(error_number);
      if (error_number == ENOTCONN) reason = "the mount is gone";
      if (verdict != PushVerdict::kFailed && late)
        reason += ", for " + std::to_string(limit_ms / 1000) + " s";
      return Error(from_errno(error_number), "push to " + what + ": " + reason);
    }
    if (verdict == PushVerdict::kRetryNow) continue;
    pause(wait, control);
    wait = std::min(wait * 2, kPauseLongest);
  }
}

}  // namespace gradfs::trainer
