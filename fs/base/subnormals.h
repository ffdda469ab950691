// FlushSubnormals: while one exists, this thread's F32 and F64 arithmetic takes subnormal numbers
// (below 1.2e-38 for F32) as zero and gives zero for them, as torch.set_flush_denormal(True) has it. A moving
// average that gets no more gradients decays into them and stays there for ever (0.9 times the smallest is
// rounded to the smallest), and the processor takes a hundred times as long over each. Elsewhere than on
// x86-64 and AArch64 it does nothing.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace gradfs {

class FlushSubnormals {
 public:
  FlushSubnormals() noexcept : before_(read()) { write(before_ | kFlush); }
  ~FlushSubnormals() { write(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Word = std::uint32_t;
  static constexpr Word kFlush = 0x8040;  // MXCSR: results (FTZ) and operands (DAZ)
  static Word read() noexcept { return _mm_getcsr(); }
  static void write(Word word) noexcept { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = std::uint64_t;
  static constexpr Word kFlush = 1U << 24;  // FPCR.FZ
  static Word read() noexcept {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) noexcept { asm volatile("msr fpcr, %0" : : "r"(word)); }
#else
  using Word = std::uint32_t;
  static constexpr Word kFlush = 0;
  static Word read() noexcept { return 0; }
  static void write(Word) noexcept {}
#endif

  const Word before_;
};

}  // namespace gradfs
