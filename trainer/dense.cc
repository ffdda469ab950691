#include "trainer/dense.h"

#include <cstdlib>
#include <string_view>

namespace gradfs::trainer {

extern const DenseKernels kDenseBaseline;
#if defined(__x86_64__)
extern const DenseKernels kDenseAvx2;
extern const DenseKernels kDenseAvx512;
#endif

std::vector<const DenseKernels*> supported_dense_kernels() {
  std::vector<const DenseKernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx512) found.push_back(&kDenseAvx512);
  if (avx2) found.push_back(&kDenseAvx2);
#endif
  found.push_back(&kDenseBaseline);
  return found;
}

const DenseKernels& dense_kernels() {
  static const DenseKernels& chosen = [&]() -> const DenseKernels& {
    const std::vector<const DenseKernels*> all = supported_dense_kernels();
    if (const char* wanted = std::getenv("GRADFS_TRAIN_KERNELS")) {
      for (const DenseKernels* kernels : all) {
        if (kernels->name == std::string_view(wanted)) return *kernels;
      }
    }
    return *all.front();
  }();
  return chosen;
}

}  // namespace gradfs::trainer
