// What kernels share that keep blocks of two factors in shared memory, and
// their product's blocks of 8 x 8 sums in the registers of each thread.

#ifndef KCONV_CUDA_TILE_H_
#define KCONV_CUDA_TILE_H_

#include <cstdint>

#include "cuda/host_device.h"

namespace kconv::cuda {

// What is loaded or stored by one instruction.
struct alignas(16) Four {
  float at[4];
};

KCONV_HOST_DEVICE inline Four LoadFour(const float* from) {
  return *reinterpret_cast<const Four*>(from);
}
KCONV_HOST_DEVICE inline void StoreFour(const Four& four, float* to) {
  *reinterpret_cast<Four*>(to) = four;
}

// The same number, of which the compiler forgets where it comes from: what
// follows from it is computed where it is used, rather than kept in registers
// from step to step.
KCONV_HOST_DEVICE inline int Afresh(int number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(number));
#endif
  return number;
}

// Starts to copy 16 bytes from device memory to shared memory; zeros where
// nothing `exists`, and then `from` is not read. Both are aligned to it.
KCONV_HOST_DEVICE inline void StartCopy(const float* from, bool exists,
                                        float* to) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from)), "r"(exists ? 16 : 0)
               : "memory");
#else
  StoreFour(exists ? LoadFour(from) : Four{}, to);
#endif
}

// Until all that this thread has started is there. The others see it after the
// step.
KCONV_HOST_DEVICE inline void AwaitCopies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// sum[i][j] += a[i] b[j], where each factor lies in two runs of four.
KCONV_HOST_DEVICE inline void AddProducts(const float* a_low,
                                          const float* a_high,
                                          const float* b_low,
                                          const float* b_high,
                                          float (&sum)[8][8]) {
  const Four a[2] = {LoadFour(a_low), LoadFour(a_high)};
  const Four b[2] = {LoadFour(b_low), LoadFour(b_high)};
  KCONV_UNROLL
  for (int i = 0; i < 8; ++i) {
    KCONV_UNROLL
    for (int j = 0; j < 8; ++j) {
      sum[i][j] += a[i / 4].at[i % 4] * b[j / 4].at[j % 4];
    }
  }
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_TILE_H_
