#define Eigen EigenAvx512
#define GRADFS_DENSE_VARIANT kDenseAvx512
#define GRADFS_DENSE_NAME "avx512"
#include "trainer/dense_body.inc"
