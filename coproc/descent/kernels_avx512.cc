#include <cmath>
#include <cstdint>
#include <cstring>

#include "coproc/descent/kernels.h"

namespace gradfs::kernels_avx512 {
#include "coproc/descent/kernels_body.inc"
}  // namespace gradfs::kernels_avx512
