#define Eigen EigenAvx2
#define GRADFS_DENSE_VARIANT kDenseAvx2
#define GRADFS_DENSE_NAME "avx2"
#include "trainer/dense_body.inc"
