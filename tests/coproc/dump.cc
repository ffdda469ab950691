// Runs a built-in rule over a request on stdin; torch_test.py compares what it answers with PyTorch.
//
//   request: OPTIMIZER LR WEIGHT_DECAY MOMENTUM DAMPENING BETA1 BETA2 EPS ALPHA LR_DECAY INITIAL LOSS_SCALE
//            N STEPS '\n'
//            N floats of parameters, then N floats of gradient for each step
//   answer:  for each step N floats of parameters, of state 0 and of state 1 (zeros where there is none)
//
// Every kernel that this processor has must give the same bits; else the program fails.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "coproc/descent/kernels.h"
#include "coproc/descent/layout.h"

namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "descent_dump: %s\n", what);
  std::exit(1);
}

std::vector<float> read_floats(std::size_t count) {
  std::vector<float> out(count);
  if (std::fread(out.data(), sizeof(float), count, stdin) != count) fail("the request is too short");
  return out;
}

struct Arrays {
  std::vector<float> array[3];
};

gradfs::KernelSpan stripe_of(const Arrays& arrays, const std::vector<float>& gradient, std::size_t first) {
  gradfs::KernelSpan span;
  span.n = std::min<std::size_t>(gradfs::kStripeParameters, gradient.size() - first);
  span.grad = gradient.data() + first;
  span.param = arrays.array[0].data() + first;
  for (int i = 0; i < 2; ++i) span.state[i] = arrays.array[i + 1].data() + first;
  return span;
}

double find_trust_ratio(gradfs::NormsKernel norms, const gradfs::KernelScalars& scalars, const Arrays& arrays,
                        const std::vector<float>& gradient) {
  double total[2] = {};
  for (std::size_t first = 0; first < gradient.size(); first += gradfs::kStripeParameters) {
    double squares[2];
    norms(stripe_of(arrays, gradient, first), scalars, squares);
    for (int i = 0; i < 2; ++i) total[i] += squares[i];
  }
  return gradfs::trust_ratio_of(total[0], total[1]);
}

// By stripes and into other arrays, as the engine does it.
void step(const gradfs::Kernels& kernels, gradfs::Optimizer optimizer, gradfs_hyper hyper, Arrays& arrays,
          const std::vector<float>& gradient) {
  if (const gradfs::NormsKernel norms = gradfs::norms_kernel_of(kernels, optimizer)) {
    hyper.trust_ratio = find_trust_ratio(norms, gradfs::scalars_of(optimizer, hyper), arrays, gradient);
  }
  const gradfs::KernelScalars scalars = gradfs::scalars_of(optimizer, hyper);
  Arrays fresh = arrays;
  for (std::size_t first = 0; first < gradient.size(); first += gradfs::kStripeParameters) {
    gradfs::KernelSpan span = stripe_of(arrays, gradient, first);
    span.new_param = fresh.array[0].data() + first;
    for (std::uint32_t i = 0; i < 2; ++i) {
      if (gradfs::writes_state(optimizer, scalars, i)) span.new_state[i] = fresh.array[i + 1].data() + first;
    }
    gradfs::kernel_of(kernels, optimizer)(span, scalars);
  }
  arrays = fresh;
}

}  // namespace

int main() {
  char name[16];
  gradfs_hyper hyper{};
  hyper.size = sizeof hyper;
  double loss_scale = 1;
  std::size_t n = 0;
  std::uint64_t steps = 0;
  hyper.trust_ratio = 1;
  if (std::scanf("%15s %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf %lf %zu %lu", name, &hyper.lr,
                 &hyper.weight_decay, &hyper.momentum, &hyper.dampening, &hyper.beta1, &hyper.beta2,
                 &hyper.eps, &hyper.alpha, &hyper.lr_decay, &hyper.initial_accumulator_value, &loss_scale, &n,
                 &steps) != 14 ||
      std::getchar() != '\n') {
    fail("the first line is not a request");
  }
  const auto optimizer = gradfs::optimizer_from_text(name);
  if (!optimizer) fail("unknown optimizer");
  hyper.nesterov = *optimizer == gradfs::Optimizer::kNesterov ? 1 : 0;
  hyper.grad_scale = static_cast<float>(1.0 / loss_scale);

  std::vector<Arrays> runs;  // one for each kernel
  const std::vector<float> parameters = read_floats(n);
  for (const auto* table = gradfs::all_kernels(); *table != nullptr; ++table) {
    runs.push_back({{parameters, std::vector<float>(n), std::vector<float>(n)}});
  }
  for (hyper.step = 1; hyper.step <= steps; ++hyper.step) {
    const std::vector<float> gradient = read_floats(n);
    for (std::size_t run = 0; run < runs.size(); ++run) {
      step(*gradfs::all_kernels()[run], *optimizer, hyper, runs[run], gradient);
      for (int i = 0; i < 3; ++i) {
        if (std::memcmp(runs[run].array[i].data(), runs[0].array[i].data(), n * sizeof(float)) != 0)
          fail(gradfs::all_kernels()[run]->name);
      }
    }
    for (const auto& array : runs[0].array) std::fwrite(array.data(), sizeof(float), n, stdout);
  }
}
