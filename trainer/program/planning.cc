#include "trainer/program/planning.h"

#include <cstdio>

#include "fs/base/size.h"
#include "trainer/model_file.h"

namespace gradfs::trainer {
namespace {

constexpr std::size_t kAdamStates = 2;  // as many as any optimizer has

// Copies of the parameters beside the model and its optimizer's states.
struct Copies {
  const char* architecture;
  std::size_t a_worker;
  std::size_t for_each_worker_elsewhere;
  std::size_t in_all;
  bool looks_ahead;  // where several train: two more for each worker
};
constexpr Copies kCopies[] = {
    {"broadcast", 2, 1, 0, false},   // parameters and gradient; the driver's copy of each gradient
    {"storage", 2, 0, 2, false},     // gradient and its file; the old model's file and the new one
    {"paramserver", 2, 1, 0, true},  // as broadcast
    {"coprocessor", 1, 0, 0, true},  // the slot
    {"allreduce", 3 + kAdamStates, 0, 0, false},  // parameters, gradient, MPI's buffer, states
    {"local", 1, 0, 0, false},
};

std::vector<DenseLayer> layers_of(const std::vector<std::size_t>& widths) {
  std::vector<DenseLayer> layers;
  std::size_t at = 0;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    layers.push_back({widths[i], widths[i + 1], at, at + widths[i] * widths[i + 1]});
    at += widths[i + 1] * (widths[i] + 1);
  }
  return layers;
}

Result<std::vector<DenseLayer>> layers_of(const Arguments& arguments) {
  if (!arguments.model.empty()) {
    GRADFS_TRY(const ModelFile file, ModelFile::open(arguments.model));
    return deduce_layers(file.layout());
  }
  for (const std::size_t width : arguments.layers) {
    if (width == 0) return Error(Errc::kInvalid, "--layers: a layer has at least one unit");
  }
  return layers_of(arguments.layers);
}

void print_line(const char* name, const std::string& text) { std::printf("%-19s %s\n", name, text.c_str()); }

}  // namespace

PlanInput plan_of(const Arguments& arguments, std::vector<DenseLayer> layers) {
  PlanInput input;
  input.layers = std::move(layers);
  input.batch_size = arguments.batch_size;
  input.workers = arguments.workers;
  input.states = kAdamStates;
  for (const Copies& copies : kCopies) {
    if (arguments.architecture != copies.architecture) continue;
    const bool ahead = copies.looks_ahead && arguments.workers > 1 && arguments.look_ahead.value_or(1) > 0;
    input.copies_a_worker = copies.a_worker + (ahead ? 2 : 0);
    input.copies_in_all = copies.in_all + copies.for_each_worker_elsewhere * arguments.workers;
  }
  return input;
}

std::optional<std::string> warning_before(const Arguments& arguments, const Architecture& architecture) {
  return memory_warning(estimate_bytes(plan_of(arguments, architecture.layers())), available_bytes());
}

Result<int> print_plan(const Arguments& arguments) {
  GRADFS_TRY(std::vector<DenseLayer> layers, layers_of(arguments));
  const PlanInput input = plan_of(arguments, std::move(layers));
  const std::string workers = std::to_string(arguments.workers);
  const std::uint64_t parameters = parameters_of(input);
  const std::uint64_t units = units_of(input);
  print_line("network", std::to_string(parameters) + " parameters, " + std::to_string(units) + " units");
  print_line("the talk's formula", "(" + std::to_string(parameters) + " + " +
                                       std::to_string(arguments.batch_size) + " x " + std::to_string(units) +
                                       ") x 3 x 4 x 1.5 x " + workers +
                                       " bytes = " + format_size(talk_formula_bytes(input)));
  const std::uint64_t estimate = estimate_bytes(input);
  const std::uint64_t available = available_bytes();
  const std::optional<std::string> warning = memory_warning(estimate, available);
  if (warning) {
    print_line("measured", "not: it might not fit");
  } else {
    GRADFS_TRY(const std::uint64_t worker, measure_worker_bytes(input));
    const std::uint64_t shared = shared_bytes(input);
    print_line("measured", workers + " x " + format_size(worker) + " for a worker of " +
                               arguments.architecture + " + " + format_size(shared) +
                               " for the model, its optimizer and buffers = " +
                               format_size(arguments.workers * worker + shared));
  }
  print_line("estimate", format_size(estimate) + ", without the data set");
  print_line("free", format_size(available));
  std::fflush(stdout);
  if (warning) std::fprintf(stderr, "%s: %s\n", kProgram, warning->c_str());
  return 0;
}

}  // namespace gradfs::trainer
