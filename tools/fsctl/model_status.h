// What the worker says of a bound model.
#pragma once

#include <string>

#include "client/lib/filesystem.h"

namespace gradfs::fsctl {

// Asked of the worker that holds the model's image, within a few seconds.
Task<Result<wire::ModelStatusResponse>> model_status(Filesystem& filesystem,
                                                     const wire::BindingState& binding);
// "running", or why it is not.
std::string model_state(const wire::ModelStatusResponse& status);

}  // namespace gradfs::fsctl
