// Division by a number that the host knows.

#ifndef KCONV_CUDA_DIVISOR_H_
#define KCONV_CUDA_DIVISOR_H_

#include <cstdint>

#include "cuda/host_device.h"

namespace kconv::cuda {

// n / divisor by a multiplication, exactly for 0 <= n < 2^31: the factor is
// 2^shift / divisor rounded up by less than 2^(shift - 31) parts of it.
struct Divisor {
  uint32_t divisor = 1;
  uint32_t factor = uint32_t{1} << 31;
  int shift = 31;

  Divisor() = default;
  // By 1 <= by < 2^31.
  explicit Divisor(int64_t by) : divisor(static_cast<uint32_t>(by)) {
    while ((uint64_t{1} << (shift - 31)) < divisor) ++shift;
    factor =
        static_cast<uint32_t>(((uint64_t{1} << shift) + divisor - 1) / divisor);
  }

  KCONV_HOST_DEVICE int Divide(int n) const {
    return static_cast<int>(uint64_t{static_cast<uint32_t>(n)} * factor >>
                            shift);
  }
  // The remainder; n becomes the quotient.
  KCONV_HOST_DEVICE int Split(int* n) const {
    const int quotient = Divide(*n);
    const int rest = *n - quotient * static_cast<int>(divisor);
    *n = quotient;
    return rest;
  }
};

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_DIVISOR_H_
