// local: one worker that takes the optimizer's step on its own memory. The reference for convergence: what
// training is without anybody to exchange with.
#pragma once

#include "trainer/exchange.h"

namespace gradfs::trainer {

// kInvalid for more than one worker.
Result<std::unique_ptr<Architecture>> open_local(const ExchangeOptions& options);

}  // namespace gradfs::trainer
