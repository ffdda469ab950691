#define GRADFS_KERNELS kKernelsAvx2
#define GRADFS_KERNELS_NAME "avx2"
#include "coproc/descent/kernels_impl.h"
