// broadcast: the model as a broadcast variable, as on Spark alone. A driver sends the whole model to every
// worker over TCP, gathers a gradient of each, takes a step with their mean, and begins anew.
//
// The connection of a worker: it sends its number and the run's (a Hello); then, until it closes the
// connection,
//   driver -> worker   Reply, parameters
//   worker -> driver   Push, gradient
// All fields are little-endian, the values F32 in the order of model.safetensors. A worker that is gone is
// not waited for: the mean is over those that are left.
#pragma once

#include "trainer/exchange.h"

namespace gradfs::trainer {

Result<std::unique_ptr<Architecture>> open_broadcast(const ExchangeOptions& options);

}  // namespace gradfs::trainer
