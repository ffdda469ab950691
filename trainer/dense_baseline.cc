#define Eigen EigenBaseline
#define GRADFS_DENSE_VARIANT kDenseBaseline
#define GRADFS_DENSE_NAME "baseline"
#include "trainer/dense_body.inc"
