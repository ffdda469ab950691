// gradfs-train --plan, and the warning before a run that will not fit.
#pragma once

#include <optional>
#include <string>

#include "trainer/plan.h"
#include "trainer/program/arguments.h"

namespace gradfs::trainer {

// What the run of these arguments holds in memory.
PlanInput plan_of(const Arguments& arguments, std::vector<DenseLayer> layers);

// One line if this machine has not enough memory for the run.
std::optional<std::string> warning_before(const Arguments& arguments, const Architecture& architecture);

// Prints the plan. Exit status 0 whether or not it fits. kInvalid: neither a model nor layers are there.
Result<int> print_plan(const Arguments& arguments);

}  // namespace gradfs::trainer
