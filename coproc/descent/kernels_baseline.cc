#define GRADFS_KERNELS kKernelsBaseline
#define GRADFS_KERNELS_NAME "baseline"
#include "coproc/descent/kernels_impl.h"
