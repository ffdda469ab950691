#include <cstdint>
#include <cstring>

#include "coproc/descent/kernels.h"

#define GRADFS_KERNELS_NAME "avx2"

namespace gradfs::kernels_avx2 {
#include "coproc/descent/kernels_body.inc"
}  // namespace gradfs::kernels_avx2
