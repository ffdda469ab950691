// The memory that a training needs on one machine: by the talk's formula, by what this implementation
// allocates, and measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fs/base/result.h"
#include "trainer/network.h"

namespace gradfs::trainer {

struct PlanInput {
  std::vector<DenseLayer> layers;
  std::size_t batch_size = 1;
  std::size_t workers = 1;  // the talk's executors
  std::size_t states = 2;   // of the optimizer, each as large as the model
  // Copies of the parameters beside the model itself and its optimizer's states:
  std::size_t copies_a_worker = 1;  // gradients, and parameters where a worker has its own
  std::size_t copies_in_all = 0;    // of a driver or server
};

std::uint64_t parameters_of(const PlanInput& input);
// Of all layers, the inputs among them: each holds an activation.
std::uint64_t units_of(const PlanInput& input);

// "Distributed Deep Learning on Spark & Tachyon" (Strata 2015):
//   bytes = (model_size + batch_size * unit_count) * 3 * 4 * 1.5 * executors
// model_size: parameters; unit_count: units of all layers, the inputs among them, as each holds an
// activation; 3: values, gradients and what the optimizer keeps; 4: bytes of a float; 1.5: what a virtual
// machine adds.
std::uint64_t talk_formula_bytes(const PlanInput& input);

// The model, its optimizer's states, and copies that are not a worker's.
std::uint64_t shared_bytes(const PlanInput& input);
// What gradfs-train, the filesystem or a driver allocate for it in all, data sets aside.
std::uint64_t estimate_bytes(const PlanInput& input);

// What one worker's process grows by when it computes a gradient: a process is forked that does.
Result<std::uint64_t> measure_worker_bytes(const PlanInput& input);

// Memory that a new program can have: what /proc/meminfo calls available, or what is left of the control
// group's limit if that is less.
std::uint64_t available_bytes();

// One line if so much does not fit.
std::optional<std::string> memory_warning(std::uint64_t needed_bytes, std::uint64_t available_bytes);

}  // namespace gradfs::trainer
