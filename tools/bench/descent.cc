// gradfs-bench descent: an update with crash safety, beside a pass over the same memory without arithmetic.
//
// The reference reads parameters, state and gradient and writes parameters and state back in place, with the
// same threads over the same maps: no update can move fewer bytes.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "coproc/descent/engine.h"
#include "coproc/descent/gradient.h"
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
constexpr double kMillisecond_s = 1e-3;
constexpr double kGiga = 1e9;
constexpr std::uint64_t kTmpfsBytes = 1ULL << 30;

struct Model {
  const char* name;
  std::vector<std::uint64_t> layers;
  int rounds;
  int quick_rounds;
};

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
    GRADFS_TRY(const UniqueFd gradient, out->make_values(directory + "/gradient", header, tensors, 0.001F));
    GRADFS_TRY(Gradient opened, open_gradient(out->engine_->layout(), gradient, out->pool_));
    out->gradient_ = std::make_unique<Gradient>(std::move(opened));
    return out;
  }

  Result<void> run(int rounds) {
    for (int round = -3; round < rounds; ++round) {  // three to warm up
      for (std::size_t i = 0; i < 2; ++i) {
        GRADFS_TRYV(check_interrupted());
        const bool reference = turn(static_cast<std::size_t>(round + 3), i, 2) == 1;
        const double begin = now_s();
        if (reference) {
          run_reference();
        } else {
          GRADFS_TRYV(engine_->apply_gradient(Sequence(engine_->watermark().value + 1), config_, *gradient_));
        }
        const double seconds = now_s() - begin;
        if (round >= 0) (reference ? reference_s_ : engine_s_).push_back(seconds);
      }
    }
    return ok();
  }

  [[nodiscard]] Row row(const Model& model) const {
    Row out;
    out.name = std::string(to_text(config_.optimizer)) + ", " + model.name;
    out.unit = "GB/s";
    const auto states = static_cast<double>(engine_->optimizer_layout().state_count());
    const double bytes = (12 + 8 * states) * static_cast<double>(engine_->layout().parameters());
    out.gradfs = bytes / median(engine_s_) / kGiga;
    out.reference_name = "read-modify-write";
    out.reference = bytes / median(reference_s_) / kGiga;
    out.ratio = paired_ratio(reference_s_, engine_s_);
    out.also["update, ms"] = median(engine_s_) / kMillisecond_s;
    out.also["update p99, ms"] = percentile(engine_s_, 0.99) / kMillisecond_s;
    out.repetitions = engine_s_.size();
    out.aim = Aim{kAim, true};
    return out;
  }

 private:
  explicit DescentBench(Optimizer optimizer)
      : pool_(std::max(1U, std::thread::hardware_concurrency())), config_(default_config(optimizer)) {}

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

  void run_reference() {
    const ModelLayout& layout = engine_->layout();
    const OptimizerLayout& states = engine_->optimizer_layout();
    const std::uint64_t nothing = layout.stripes().empty() ? 1 : 0;
    pool_.parallel_for(layout.stripes().size(), [&](std::size_t index, std::size_t) {
      const Stripe& stripe = layout.stripes()[index];
      const auto at = [&](const Mapping& mapping, std::uint64_t offset) {
        return reinterpret_cast<float*>(mapping.data() + offset) + stripe.first;
      };
      const auto* gradient = reinterpret_cast<const float*>(gradient_->data(stripe.tensor)) + stripe.first;
      float* param = at(model_, layout.tensors()[stripe.tensor].file_offset);
      float* state0 = states.state_count() > 0 ? at(states_, states.state_offset(stripe.tensor, 0)) : nullptr;
      float* state1 = states.state_count() > 1 ? at(states_, states.state_offset(stripe.tensor, 1)) : nullptr;
      if (states.state_count() == 0) touch_streams<0>(param, state0, state1, gradient, stripe.count, nothing);
      if (states.state_count() == 1) touch_streams<1>(param, state0, state1, gradient, stripe.count, nothing);
      if (states.state_count() == 2) touch_streams<2>(param, state0, state1, gradient, stripe.count, nothing);
    });
  }

  ThreadPool pool_;
  SeededRandom random_{1};
  DescentConfig config_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Gradient> gradient_;
  Mapping model_;  // the reference's maps of the engine's files
  Mapping states_;
  std::vector<double> engine_s_;
  std::vector<double> reference_s_;
};

}  // namespace

Result<Report> bench_descent(const Options& options) {
  const std::array models = {Model{"1.86M", {784, 1024, 1024, 10}, 201, 25},
                             Model{"14.3M", {2871, 2048, 2048, 2048, 15}, 51, 15}};
  Report report;
  report.bench = "descent";
  for (const Model& model : models) {
    for (const Optimizer optimizer : {Optimizer::kSgd, Optimizer::kMomentum, Optimizer::kAdam}) {
      show_progress(std::string(to_text(optimizer)) + ", " + model.name);
      GRADFS_TRY(const ScratchTmpfs tmpfs, ScratchTmpfs::mount(kTmpfsBytes));
      GRADFS_TRY(const auto bench, DescentBench::make(tmpfs.path(), model, optimizer));
      GRADFS_TRYV(bench->run(options.quick ? model.quick_rounds : model.rounds));
      report.rows.push_back(bench->row(model));
    }
  }
  report.notes.push_back(
      "one update of the whole model with crash safety (scratch stripes, numbers, watermark); the header's "
      "parse is not in it");
  report.notes.push_back(
      "reference: a pass that reads parameters, state and gradient and writes back parameters and state, "
      "same "
      "threads, same maps; GB/s counts 12, 20, 28 bytes a parameter");
  report.notes.push_back("tmpfs with huge=within_size, as a worker's");
  return report;
}

}  // namespace gradfs::bench
