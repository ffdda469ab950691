#include <cstdint>
#include <cstring>

#include "coproc/descent/kernels.h"

#define GRADFS_KERNELS_NAME "baseline"

namespace gradfs::kernels_baseline {
#include "coproc/descent/kernels_body.inc"
}  // namespace gradfs::kernels_baseline
