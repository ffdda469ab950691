// storage: the model and the gradients as files, as with Tachyon as a store. Workers read the model's file
// and write a file for each gradient; a driver reads those, takes a step with their mean, and writes the
// model.
//
// Files are written once, as Tachyon's are, and appear whole, by a rename:
//   gradients/RUN-wK-STEP.safetensors   by worker K; removed by the driver when it is in the model
//   model.safetensors                   by the driver, anew for each round; "run", "version" and, of workers
//   whose
//                                       last gradient was not finite, "refused" are in its metadata
// Both sides look for the next file again and again, ever more slowly: there is no other word between them.
#pragma once

#include "trainer/exchange.h"

namespace gradfs::trainer {

Result<std::unique_ptr<Architecture>> open_storage(const ExchangeOptions& options);

}  // namespace gradfs::trainer
