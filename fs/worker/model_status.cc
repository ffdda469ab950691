// status.json and the attributes of a bound model.
#include <nlohmann/json.hpp>

#include "fs/worker/bound_model.h"

namespace gradfs {
namespace {

constexpr std::size_t kWorkersMax = 1024;  // in status.json; the steps of more are still known to the master
constexpr std::size_t kRateWindow = 256;   // updates
constexpr std::int64_t kRateIdle_ns = 10 * kSecond_ns;
constexpr double kLossKeep = 0.95;  // of the running mean

}  // namespace

void BoundModel::note_landed(const GradientMetadata& metadata) {
  if (metadata.loss) loss_ = loss_ ? kLossKeep * *loss_ + (1 - kLossKeep) * *metadata.loss : *metadata.loss;
  if (metadata.worker.empty()) return;
  if (workers_.size() >= kWorkersMax && !workers_.contains(metadata.worker)) return;
  WorkerNote& note = workers_[metadata.worker];
  if (metadata.step) note.last_step = *metadata.step;
  if (metadata.loss) {
    note.loss = *metadata.loss;
    note.has_loss = true;
  }
}

void BoundModel::note_applied() {
  applied_times_ns_.push_back(context_.executor.clock().now_ns());
  if (applied_times_ns_.size() > kRateWindow) applied_times_ns_.pop_front();
}

std::string BoundModel::status_json() const {
  nlohmann::json workers = nlohmann::json::object();
  for (const auto& [name, note] : workers_) {
    workers[name] = {{"last_step", note.last_step}};
    if (note.has_loss) workers[name]["loss"] = note.loss;
  }
  double rate = 0;
  const std::int64_t now = context_.executor.clock().now_ns();
  if (applied_times_ns_.size() >= 2 && now - applied_times_ns_.back() < kRateIdle_ns) {
    const auto span_ns = static_cast<double>(now - applied_times_ns_.front());
    rate = static_cast<double>(applied_times_ns_.size() - 1) / (span_ns / kSecond_ns);
  }
  nlohmann::json out = {
      {"version", engine_->version()},
      {"sequence", applied_.value},
      {"committed", last_queued_.value},
      {"pending", queue_.size()},
      {"optimizer", std::string(to_text(applied_config_.optimizer))},
      {"lr", applied_config_.lr * applied_config_.schedule.factor(engine_->version())},
      {"applied", applied_.value},
      {"refused", refused_},
      {"updates_per_second", rate},
      {"loss", loss_ ? nlohmann::json(*loss_) : nlohmann::json()},
      {"parameters", layout_->parameters()},
      {"staleness", nullptr},
      {"workers", std::move(workers)},
      {"last_refusal", last_refusal_},
      {"state", failed_ ? "stopped: " + failed_->message() : "running"},
  };
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

wire::ModelStatusResponse BoundModel::status() {
  wire::ModelStatusResponse response;
  response.set_version(engine_->version());
  response.set_sequence(applied_.value);
  response.set_optimizer(std::string(to_text(applied_config_.optimizer)));
  response.set_json(status_json());
  response.set_optimizer_inode(applied_optimizer_.value);
  return response;
}

}  // namespace gradfs
