// gradfs-bench gradient: the rate at which gradfs-train computes gradients on one thread, beside that of a
// large matrix product with the same instructions.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "fs/base/clock.h"
#include "fs/base/fd.h"
#include "tools/bench/bench.h"
#include "tools/bench/cluster.h"
#include "tools/bench/stats.h"
#include "trainer/network.h"

namespace gradfs::bench {
namespace {

using trainer::DenseKernels;
using trainer::DenseLayer;

constexpr double kAim = 0.7;
constexpr std::size_t kAimBatch = 128;      // smaller ones are bound by memory
constexpr std::size_t kProductSize = 2048;  // a square product of this size comes close to the peak
constexpr double kSlice_s = 0.1;
constexpr double kGiga = 1e9;
constexpr double kMillisecond_s = 1e-3;
constexpr double kBytesParameter = 12;  // the weights are read twice, their gradient is written once

void fill(std::span<float> values, float scale, SeededRandom& random) {
  for (float& value : values) {
    value = (static_cast<float>(random.next_u64() >> 40) / 8388608.0F - 1.0F) * scale;
  }
}

std::vector<DenseLayer> layers_of(const std::vector<std::size_t>& widths, std::size_t& parameters) {
  std::vector<DenseLayer> layers;
  parameters = 0;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    const std::size_t weights = widths[i] * widths[i + 1];
    layers.push_back({widths[i], widths[i + 1], parameters, parameters + weights});
    parameters += weights + widths[i + 1];
  }
  return layers;
}

// The reference: Eigen's product of two square matrices, as the trainer's own layer calls it.
class LargeProduct {
 public:
  LargeProduct() {
    SeededRandom random(1);
    for (std::vector<float>* matrix : {&left_, &right_}) fill(*matrix, 1.0F, random);
  }
  // Operations a second.
  double run() {
    constexpr std::size_t n = kProductSize;
    const double begin = now_s();
    trainer::dense_kernels().forward(left_.data(), right_.data(), bias_.data(), n, n, n, false, out_.data());
    return 2.0 * n * n * n / (now_s() - begin);
  }

 private:
  std::vector<float> left_ = std::vector<float>(kProductSize * kProductSize);
  std::vector<float> right_ = left_;
  std::vector<float> out_ = left_;
  std::vector<float> bias_ = std::vector<float>(kProductSize);
};

class GradientBench {
 public:
  GradientBench(const std::vector<std::size_t>& widths, std::size_t batch)
      : layers_(layers_of(widths, count_)), network_(layers_, batch), labels_(batch) {
    SeededRandom random(2);
    for (const DenseLayer& layer : layers_) {  // He's scale: neither dies out nor grows from layer to layer
      const float scale = std::sqrt(6.0F / static_cast<float>(layer.inputs));
      fill(std::span(parameters_).subspan(layer.weight_offset, layer.inputs * layer.outputs), scale, random);
    }
    fill(network_.batch(), 1.0F, random);
    for (std::uint8_t& label : labels_) label = static_cast<std::uint8_t>(random.next_u64() % widths.back());
  }

  // As many gradients as fit into a slice. Seconds of one.
  double run() {
    const float scale = 1.0F / static_cast<float>(labels_.size());
    const double begin = now_s();
    double end = begin;
    std::size_t done = 0;
    for (; end < begin + kSlice_s; end = now_s(), ++done) {
      network_.gradient(parameters_.data(), labels_, scale, false, gradient_.data());
    }
    return (end - begin) / static_cast<double>(done);
  }

  [[nodiscard]] double flops() const { return network_.gradient_flops(labels_.size()); }
  [[nodiscard]] double parameters() const { return static_cast<double>(count_); }

 private:
  std::size_t count_ = 0;
  std::vector<DenseLayer> layers_;
  trainer::Network network_;
  std::vector<std::uint8_t> labels_;
  std::vector<float> parameters_ = std::vector<float>(count_);
  std::vector<float> gradient_ = std::vector<float>(count_);
};

// The rate of the same product in numpy, GFLOP/s; none where there is no numpy.
std::optional<double> numpy_rate() {
  const std::string script = "import numpy, time\nn = " + std::to_string(kProductSize) + R"(
a = numpy.random.rand(n, n).astype(numpy.float32)
b = numpy.random.rand(n, n).astype(numpy.float32)
times = []
for i in range(5):
    begin = time.perf_counter()
    a @ b
    times.append(time.perf_counter() - begin)
print(2e-9 * n ** 3 / sorted(times)[2]))";
  std::vector<std::string> environment = {"OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", "OMP_NUM_THREADS=1"};
  if (trainer::dense_kernels().name == std::string_view("avx512")) {
    environment.emplace_back("OPENBLAS_CORETYPE=SkylakeX");  // one older than the processor would take SSE
  }
  const UniqueFd output(::memfd_create("gradfs-bench-numpy", MFD_CLOEXEC));
  const std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(output.get());
  if (!run_program({"/usr/bin/python3", "-c", script}, environment, path)) return std::nullopt;
  const Result<std::string> text = read_text_file(path);
  double rate = 0;
  if (!text || !(std::istringstream(text.value()) >> rate)) return std::nullopt;
  return rate;
}

std::string name_of(const std::vector<std::size_t>& widths, std::size_t batch) {
  std::string name;
  for (const std::size_t width : widths) name += (name.empty() ? "" : "-") + std::to_string(width);
  return name + ", batch " + std::to_string(batch);
}

Result<Row> measure(const std::vector<std::size_t>& widths, std::size_t batch, int rounds,
                    LargeProduct& product) {
  GradientBench bench(widths, batch);
  std::vector<double> seconds;
  std::vector<double> rates;
  std::vector<double> reference_rates;
  for (int round = -1; round < rounds; ++round) {  // one to warm up
    double own_s = 0;
    double reference = 0;
    for (std::size_t i = 0; i < 2; ++i) {
      GRADFS_TRYV(check_interrupted());
      if (turn(static_cast<std::size_t>(round + 1), i, 2) == 1) {
        reference = product.run();
      } else {
        own_s = bench.run();
      }
    }
    if (round < 0) continue;
    seconds.push_back(own_s);
    rates.push_back(bench.flops() / own_s / kGiga);
    reference_rates.push_back(reference / kGiga);
  }
  Row row;
  row.name = name_of(widths, batch);
  row.unit = "GFLOP/s";
  row.gradfs = median(rates);
  row.reference_name = std::to_string(kProductSize) + "^3 product";
  row.reference = median(reference_rates);
  row.ratio = paired_ratio(rates, reference_rates);
  row.also["gradient, ms"] = median(seconds) / kMillisecond_s;
  row.also["of memory, GB/s"] = kBytesParameter * bench.parameters() / median(seconds) / kGiga;
  row.repetitions = rates.size();
  if (batch >= kAimBatch) row.aim = Aim{kAim, true};
  return row;
}

}  // namespace

Result<Report> bench_gradient(const Options& options) {
  const std::array<std::vector<std::size_t>, 3> networks = {
      {{784, 1024, 1024, 10}, {28, 2048, 2048, 2048, 2}, {2871, 2048, 2048, 2048, 15}}};
  Report report;
  report.bench = "gradient";
  LargeProduct product;
  for (const std::vector<std::size_t>& widths : networks) {
    for (const std::size_t batch : {8, 32, 128, 512}) {
      show_progress(name_of(widths, batch));
      GRADFS_TRY(Row row, measure(widths, batch, options.quick ? 3 : 15, product));
      report.rows.push_back(std::move(row));
    }
  }
  report.notes.push_back(std::string("one thread; kernels: ") + trainer::dense_kernels().name +
                         "; the loss and its gradient by all parameters, for one batch in memory");
  report.notes.push_back("reference: Eigen's product of two square matrices, F32, same kernels and thread");
  report.notes.push_back(
      "of memory: the 12 bytes a parameter that no gradient can do without (two reads of the weights, one "
      "write of their gradient): what bounds a small batch");
  if (const std::optional<double> rate = numpy_rate()) {
    char text[96];
    std::snprintf(text, sizeof text, "the same product in numpy (OpenBLAS, one thread): %.0f GFLOP/s", *rate);
    report.notes.emplace_back(text);
  }
  return report;
}

}  // namespace gradfs::bench
