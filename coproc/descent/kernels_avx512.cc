#define GRADFS_KERNELS kKernelsAvx512
#define GRADFS_KERNELS_NAME "avx512"
#include "coproc/descent/kernels_impl.h"
