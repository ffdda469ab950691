// paramserver: the model in an HTTP server, asynchronous.
//
//   GET /model       200, the parameters: F32, little-endian, in the order of model.safetensors
//   POST /gradient   the gradient in the same form; Gradfs-Run, Gradfs-Worker and Gradfs-Step in the head.
//   200 when
//                    the model has it (once: a step that has counted is not taken again); 422 if it is not
//                    finite; 400 for anything else that is wrong, as the number of another run
//
// A connection for each worker, kept open. The model is sent as it is at the moment, without waiting for an
// update that is under way, so what a worker gets may mix two versions.
#pragma once

#include "trainer/exchange.h"

namespace gradfs::trainer {

Result<std::unique_ptr<Architecture>> open_paramserver(const ExchangeOptions& options);

}  // namespace gradfs::trainer
