#include "trainer/report.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "fs/base/fd.h"

namespace gradfs::trainer {
namespace {

// Enough digits for a person; JSON has no NaN.
nlohmann::json rounded(double value, double digits) {
  if (!std::isfinite(value)) return nullptr;
  return std::round(value * digits) / digits;
}

// A whole number as such: 5, not 5.0.
nlohmann::json count_or_part(double value) {
  if (value == std::floor(value) && value < 1e15) return static_cast<std::uint64_t>(value);
  return value;
}

nlohmann::json milliseconds(double seconds) { return rounded(seconds, 1e3); }

template <class T>
nlohmann::json or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::ordered_json spread(const Spread& times) {
  const auto time = [](const std::optional<double>& value) { return value ? rounded(*value, 1e4) : nullptr; };
  return {{"median", time(times.median_ms)}, {"p99", time(times.p99_ms)}};
}

bool is_special(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("write");
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return ok();
}

}  // namespace

std::optional<double> seconds_to(const std::vector<Evaluation>& history, double accuracy) {
  for (const Evaluation& evaluation : history) {
    if (evaluation.test_accuracy >= accuracy) return evaluation.seconds;
  }
  return std::nullopt;
}

std::vector<std::uint64_t> layer_widths(const std::vector<DenseLayer>& layers) {
  std::vector<std::uint64_t> widths;
  for (const DenseLayer& layer : layers) {
    if (widths.empty()) widths.push_back(layer.inputs);
    widths.push_back(layer.outputs);
  }
  return widths;
}

std::string report_json(const Report& report) {
  nlohmann::ordered_json milestones = nlohmann::ordered_json::object();
  for (const char* accuracy : kMilestones) {
    if (const std::optional<double> seconds = seconds_to(report.history, std::strtod(accuracy, nullptr))) {
      milestones[accuracy] = milliseconds(*seconds);
    }
  }
  nlohmann::ordered_json history = nlohmann::ordered_json::array();
  for (const Evaluation& evaluation : report.history) {
    history.push_back({{"seconds", milliseconds(evaluation.seconds)},
                       {"epoch", rounded(evaluation.epoch, 1e3)},
                       {"loss", rounded(evaluation.loss, 1e6)},
                       {"test_accuracy", rounded(evaluation.test_accuracy, 1e6)}});
  }
  const nlohmann::ordered_json out = {
      {"dataset", report.dataset},
      {"architecture", report.architecture},
      {"layers", report.layers},
      {"parameters", report.parameters},
      {"workers", report.workers},
      {"partitions", report.partitions},
      {"epochs", report.epochs ? count_or_part(*report.epochs) : rounded(report.epochs_completed, 1e3)},
      {"epochs_completed", rounded(report.epochs_completed, 1e3)},
      {"max_seconds", or_null(report.seconds_max)},
      {"batch_size", report.batch_size},
      {"n_push", report.n_push},
      {"n_fetch", report.n_fetch},
      {"look_ahead", report.look_ahead},
      {"label_smoothing", rounded(report.label_smoothing, 1e6)},
      {"push", report.push},
      {"seed", report.seed},
      {"optimizer", report.optimizer},
      {"test_accuracy", rounded(report.test_accuracy, 1e6)},
      {"train_loss", rounded(report.train_loss, 1e6)},
      {"train_seconds", milliseconds(report.train_seconds)},
      {"load_seconds", milliseconds(report.load_seconds)},
      {"samples", report.samples},
      {"samples_per_second", rounded(report.samples_per_second, 10)},
      {"gradients_applied", report.gradients_applied},
      {"gradients_dropped", report.gradients_dropped},
      {"gradients_refused", report.gradients_refused},
      {"updates_per_second", rounded(report.updates_per_second, 1e3)},
      {"exchange_ms", spread(report.exchange)},
      {"compute_ms", spread(report.compute)},
      {"bytes_moved", report.bytes_moved},
      {"cpu_seconds", milliseconds(report.cpu_seconds)},
      {"server_cpu_seconds", milliseconds(report.server_cpu_seconds)},
      {"peak_memory_bytes", report.peak_memory_bytes},
      {"model_version", or_null(report.model_version)},
      {"seconds_to_accuracy", milestones},
      {"workers_lost", report.workers_lost},
      {"interrupted", report.interrupted},
      {"kernels", report.kernels},
      {"run", report.run},
      {"command", report.command},
      {"history", history},
  };
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Result<void> check_report_path(const std::string& path) {
  if (is_special(path)) return ok();
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return Error(Errc::kIsDirectory, path);
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  if (::stat(directory.c_str(), &status) != 0) return errno_error(directory);
  if (!S_ISDIR(status.st_mode)) return Error(Errc::kNotDirectory, directory);
  if (::access(directory.c_str(), W_OK | X_OK) != 0) return errno_error(directory);
  return ok();
}

Result<void> write_report(const Report& report, const std::string& path) {
  const std::string text = report_json(report);
  if (is_special(path)) {
    GRADFS_TRY(UniqueFd fd, open_file(path, O_WRONLY));
    if (Result<void> written = write_all(fd.get(), text); !written) {
      return Error(written.error().code, path + ": " + written.error().detail);
    }
    return ok();
  }
  Result<void> written = replace_text_file(path, text);
  if (!written) {
    ::unlink((path + ".tmp").c_str());
    const std::string& detail = written.error().detail;
    return Error(written.error().code,
                 detail.find(path) == std::string::npos ? path + ": " + detail : detail);
  }
  return ok();
}

}  // namespace gradfs::trainer
