// gradfs-bench descent: an update with crash safety, beside a pass over the same memory without arithmetic,
// and beside the same kernel that writes in place; eight gradients in one pass, beside eight passes.
//
// The reference reads parameters, state and gradient and writes parameters and state back in place, with the
// same threads over the same maps: no update can move fewer bytes.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "coproc/descent/engine.h"
#include "coproc/descent/gradient.h"
#include "coproc/descent/kernels.h"
#include "coproc/descent/layout.h"
#include "fs/base/clock.h"
#include "fs/base/fd.h"
#include "fs/base/thread_pool.h"
#include "tools/bench/bench.h"
#include "tools/bench/scratch.h"
#include "tools/bench/stats.h"

namespace gradfs::bench {
namespace {

constexpr double kAim = 0.9;
constexpr double kSafetyAim = 0.9;  // crash safety costs at most a tenth of the kernel's rate
constexpr double kMillisecond_s = 1e-3;
constexpr double kGiga = 1e9;
constexpr std::uint64_t kTmpfsBytes = 1ULL << 30;

struct Model {
  const char* name;
  std::vector<std::uint64_t> layers;
  int rounds;
  int quick_rounds;
  bool queues;  // whether it is measured with several gradients, too
};

double together_aim(Optimizer optimizer) {
  switch (optimizer) {
    case Optimizer::kSgd:
      return 1.8;
    case Optimizer::kAdam:
      return 1.6;
    default:
      return 2.4;
  }
}

std::vector<TensorEntry> tensors_of(const Model& model) {
  std::vector<TensorEntry> out;
  for (std::size_t i = 0; i + 1 < model.layers.size(); ++i) {
    const std::string name = "fc" + std::to_string(i + 1);
    out.push_back({name + ".weight", Dtype::kF32, {model.layers[i + 1], model.layers[i]}, 0, 0});
    out.push_back({name + ".bias", Dtype::kF32, {model.layers[i + 1]}, 0, 0});
  }
  return out;
}

// Reads all three or four streams, writes all but the gradient: `nothing` is 0, which the compiler cannot
// know.
template <int kStates>
void touch_streams(float* param, float* state0, float* state1, const float* gradient, std::size_t count,
                   std::uint64_t nothing) {
  auto* __restrict p = reinterpret_cast<std::uint32_t*>(param);
  auto* __restrict a = reinterpret_cast<std::uint32_t*>(state0);
  auto* __restrict b = reinterpret_cast<std::uint32_t*>(state1);
  const auto* __restrict g = reinterpret_cast<const std::uint32_t*>(gradient);
  const auto mask = static_cast<std::uint32_t>(nothing);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t change = g[i] & mask;
    p[i] ^= change;
    if constexpr (kStates > 0) a[i] ^= change;
    if constexpr (kStates > 1) b[i] ^= change;
  }
}

class DescentBench {
 public:
  static Result<std::unique_ptr<DescentBench>> make(const std::string& directory, const Model& model,
                                                    Optimizer optimizer) {
    std::unique_ptr<DescentBench> out(new DescentBench(optimizer));
    const std::vector<TensorEntry> tensors = tensors_of(model);
    GRADFS_TRY(const std::string header, format_safetensors(tensors));
    EngineFiles files;
    GRADFS_TRY(files.model, out->make_values(directory + "/model", header, tensors, 0.05F));
    GRADFS_TRY(const ModelLayout layout, ModelLayout::read(files.model.get()));
    GRADFS_TRY(const OptimizerLayout states, OptimizerLayout::make(layout, optimizer));
    GRADFS_TRY(files.optimizer, open_file(directory + "/optimizer", O_RDWR | O_CREAT | O_TRUNC));
    GRADFS_TRYV(states.initialise(files.optimizer.get()));
    GRADFS_TRY(files.control, open_file(directory + "/control", O_RDWR | O_CREAT | O_TRUNC));
    ControlOptions options;
    options.optimizer = optimizer;
    options.thread_slots = static_cast<std::uint32_t>(out->pool_.threads());
    GRADFS_TRYV(format_control(files.control.get(), layout, options));
    GRADFS_TRY(out->model_, Mapping::map(files.model, layout.file_bytes(), true));
    GRADFS_TRY(out->states_, Mapping::map(files.optimizer, states.file_bytes(), true));
    GRADFS_TRY(out->engine_, Engine::open(std::move(files), out->pool_));
    for (std::size_t i = 0; i < (model.queues ? kGradientsAtOnce : 1); ++i) {
      GRADFS_TRY(const UniqueFd gradient,
                 out->make_values(directory + "/gradient" + std::to_string(i), header, tensors, 0.001F));
      GRADFS_TRY(Gradient opened, open_gradient(out->engine_->layout(), gradient, out->pool_));
      out->gradients_.push_back(std::make_unique<Gradient>(std::move(opened)));
      out->queue_.push_back(out->gradients_.back().get());
    }
    return out;
  }

  Result<void> run(int rounds) {
    for (int round = -3; round < rounds; ++round) {  // three to warm up
      for (std::size_t i = 0; i < 3; ++i) {
        GRADFS_TRYV(check_interrupted());
        const std::size_t who = turn(static_cast<std::size_t>(round + 3), i, 3);
        const double begin = now_s();
        if (who == 0) {
          GRADFS_TRYV(engine_->apply_gradient(next(), config_, *queue_.front()));
        } else if (who == 1) {
          run_reference();
        } else {
          run_in_place();
        }
        const double seconds = now_s() - begin;
        if (round >= 0) (who == 0 ? engine_s_ : who == 1 ? reference_s_ : in_place_s_).push_back(seconds);
      }
    }
    return ok();
  }

  // All of the queue, in one pass and one after the other.
  Result<void> run_queue(int rounds) {
    for (int round = -2; round < rounds; ++round) {
      for (std::size_t i = 0; i < 2; ++i) {
        GRADFS_TRYV(check_interrupted());
        const bool together = turn(static_cast<std::size_t>(round + 2), i, 2) == 0;
        const double begin = now_s();
        if (together) {
          GRADFS_TRYV(engine_->apply_gradients(next(), config_, queue_));
        } else {
          for (const Gradient* gradient : queue_) {
            GRADFS_TRYV(engine_->apply_gradient(next(), config_, *gradient));
          }
        }
        const double seconds = now_s() - begin;
        if (round >= 0) (together ? together_s_ : one_by_one_s_).push_back(seconds);
      }
    }
    return ok();
  }

  [[nodiscard]] Row row(const Model& model) const {
    Row out;
    out.name = name_of(model);
    out.unit = "GB/s";
    const double bytes = bytes_of_a_pass();
    out.gradfs = bytes / median(engine_s_) / kGiga;
    out.reference_name = "read-modify-write";
    out.reference = bytes / median(reference_s_) / kGiga;
    out.ratio = paired_ratio(reference_s_, engine_s_);
    out.also["update, ms"] = median(engine_s_) / kMillisecond_s;
    out.also["update p99, ms"] = percentile(engine_s_, 0.99) / kMillisecond_s;
    out.repetitions = engine_s_.size();
    out.aim = aim(kAim);
    return out;
  }

  [[nodiscard]] Row safety_row(const Model& model) const {
    Row out;
    out.name = name_of(model) + ", crash safety";
    out.unit = "GB/s";
    out.gradfs = bytes_of_a_pass() / median(engine_s_) / kGiga;
    out.reference_name = "the kernel in place";
    out.reference = bytes_of_a_pass() / median(in_place_s_) / kGiga;
    out.ratio = paired_ratio(in_place_s_, engine_s_);
    out.repetitions = engine_s_.size();
    out.aim = aim(kSafetyAim);
    return out;
  }

  [[nodiscard]] Row queue_row(const Model& model) const {
    Row out;
    const auto gradients = static_cast<double>(queue_.size());
    out.name = name_of(model) + ", " + std::to_string(queue_.size()) + " gradients in one pass";
    out.unit = "gradients/s";
    out.gradfs = gradients / median(together_s_);
    out.reference_name = "one by one";
    out.reference = gradients / median(one_by_one_s_);
    out.ratio = paired_ratio(one_by_one_s_, together_s_);
    out.repetitions = together_s_.size();
    out.aim = aim(together_aim(config_.optimizer));
    return out;
  }

 private:
  // The aims are for three rules; the others are shown beside them.
  [[nodiscard]] std::optional<Aim> aim(double ratio) const {
    const Optimizer rule = config_.optimizer;
    if (rule != Optimizer::kSgd && rule != Optimizer::kMomentum && rule != Optimizer::kAdam) return std::nullopt;
    return Aim{ratio, true};
  }
  [[nodiscard]] Sequence next() const { return Sequence(engine_->watermark().value + 1); }
  [[nodiscard]] std::string name_of(const Model& model) const {
    return std::string(to_text(config_.optimizer)) + ", " + model.name;
  }
  [[nodiscard]] double bytes_of_a_pass() const {
    const auto states = static_cast<double>(engine_->optimizer_layout().state_count());
    return (12 + 8 * states) * static_cast<double>(engine_->layout().parameters());
  }

  explicit DescentBench(Optimizer optimizer)
      : pool_(std::max(1U, std::thread::hardware_concurrency())), config_(default_config(optimizer)) {
    if (optimizer == Optimizer::kRmsprop) config_.momentum = 0.9;  // so that it moves both of its states
  }

  // A file of these tensors with random values in (-scale, scale).
  Result<UniqueFd> make_values(const std::string& path, const std::string& header,
                               const std::vector<TensorEntry>& tensors, float scale) {
    std::uint64_t count = 0;
    for (const TensorEntry& tensor : tensors) {
      GRADFS_TRY(const std::uint64_t own, element_count(tensor.shape));
      count += own;
    }
    GRADFS_TRY(UniqueFd fd, open_file(path, O_RDWR | O_CREAT | O_TRUNC));
    GRADFS_TRYV(preallocate(fd.get(), header.size() + count * sizeof(float)));
    GRADFS_TRYV(write_fully_at(fd.get(), std::as_bytes(std::span(header)), 0));
    std::vector<float> values(1 << 20);
    for (std::uint64_t done = 0; done < count; done += values.size()) {
      const std::uint64_t part = std::min<std::uint64_t>(values.size(), count - done);
      for (float& value : values) {
        value = (static_cast<float>(random_.next_u64() >> 40) / 8388608.0F - 1.0F) * scale;
      }
      GRADFS_TRYV(write_fully_at(fd.get(), std::as_bytes(std::span(values).first(part)),
                                 header.size() + done * sizeof(float)));
    }
    return fd;
  }

  // A stripe as a rule gets it, over the bench's own maps.
  [[nodiscard]] gradfs_span span_of(const Stripe& stripe) const {
    const OptimizerLayout& states = engine_->optimizer_layout();
    const auto at = [&](const Mapping& mapping, std::uint64_t offset) {
      return reinterpret_cast<float*>(mapping.data() + offset) + stripe.first;
    };
    gradfs_span out{};
    out.size = sizeof out;
    out.n = stripe.count;
    out.param = at(model_, engine_->layout().tensors()[stripe.tensor].file_offset);
    out.grad = reinterpret_cast<const float*>(queue_.front()->data(stripe.tensor)) + stripe.first;
    for (std::uint32_t i = 0; i < states.state_count(); ++i) {
      out.state[i] = at(states_, states.state_offset(stripe.tensor, i));
    }
    return out;
  }

  void run_reference() {
    const std::vector<Stripe>& stripes = engine_->layout().stripes();
    const std::uint32_t states = engine_->optimizer_layout().state_count();
    const std::uint64_t nothing = stripes.empty() ? 1 : 0;
    pool_.parallel_for(stripes.size(), [&](std::size_t index, std::size_t) {
      const gradfs_span s = span_of(stripes[index]);
      if (states == 0) touch_streams<0>(s.param, s.state[0], s.state[1], s.grad, s.n, nothing);
      if (states == 1) touch_streams<1>(s.param, s.state[0], s.state[1], s.grad, s.n, nothing);
      if (states == 2) touch_streams<2>(s.param, s.state[0], s.state[1], s.grad, s.n, nothing);
    });
  }

  // The rule as it stands, straight onto the model: a kill in the middle would lose it.
  void run_in_place() {
    const std::vector<Stripe>& stripes = engine_->layout().stripes();
    const gradfs_rule& rule = builtin_rule(config_.optimizer);
    const DescentConfig::ForTensor own = config_.for_tensor("");
    const gradfs_hyper hyper = hyper_of(config_, own, {1000, 1000, 1.0F});
    pool_.parallel_for(stripes.size(), [&](std::size_t index, std::size_t) {
      const gradfs_span span = span_of(stripes[index]);
      rule.apply(&span, &hyper);
    });
  }

  ThreadPool pool_;
  SeededRandom random_{1};
  DescentConfig config_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::unique_ptr<Gradient>> gradients_;
  std::vector<const Gradient*> queue_;
  Mapping model_;  // the references' maps of the engine's files
  Mapping states_;
  std::vector<double> engine_s_;
  std::vector<double> reference_s_;
  std::vector<double> in_place_s_;
  std::vector<double> together_s_;
  std::vector<double> one_by_one_s_;
};

}  // namespace

Result<Report> bench_descent(const Options& options) {
  const std::array models = {Model{"1.86M", {784, 1024, 1024, 10}, 201, 25, false},
                             Model{"14.3M", {2871, 2048, 2048, 2048, 15}, 51, 15, true}};
  Report report;
  report.bench = "descent";
  for (const Model& model : models) {
    for (const Optimizer optimizer : {Optimizer::kSgd, Optimizer::kMomentum, Optimizer::kAdam, Optimizer::kAdagrad,
                                      Optimizer::kRmsprop, Optimizer::kLion, Optimizer::kLamb}) {
      show_progress(std::string(to_text(optimizer)) + ", " + model.name);
      GRADFS_TRY(const ScratchTmpfs tmpfs, ScratchTmpfs::mount(kTmpfsBytes));
      GRADFS_TRY(const auto bench, DescentBench::make(tmpfs.path(), model, optimizer));
      GRADFS_TRYV(bench->run(options.quick ? model.quick_rounds : model.rounds));
      report.rows.push_back(bench->row(model));
      report.rows.push_back(bench->safety_row(model));
      if (!model.queues || optimizer == Optimizer::kLamb) continue;  // which takes them one by one
      GRADFS_TRYV(bench->run_queue((options.quick ? model.quick_rounds : model.rounds) / 3));
      report.rows.push_back(bench->queue_row(model));
    }
  }
  report.notes.push_back(
      "one update of the whole model with crash safety (scratch stripes, numbers, watermark); the header's "
      "parse is not in it");
  report.notes.push_back(
      "reference: a pass that reads parameters, state and gradient and writes back parameters and state, "
      "same "
      "threads, same maps; GB/s counts 12, 20, 28 bytes a parameter; lamb reads all of it once more, for its "
      "norms");
  report.notes.push_back("tmpfs with huge=within_size, as a worker's");
  return report;
}

}  // namespace gradfs::bench
