// The architectures by name.
#pragma once

#include "trainer/exchange.h"

namespace gradfs::trainer {

// "broadcast, storage, ...".
std::string architecture_names();
// name: as on the command line. kInvalid with the names that there are for another one.
Result<std::unique_ptr<Architecture>> make_architecture(const std::string& name,
                                                        const ExchangeOptions& options);

}  // namespace gradfs::trainer
