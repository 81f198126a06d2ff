// Four elements side by side, which a GPU loads and stores at once.

#ifndef KCONV_DEFORMABLE_CUDA_FOUR_H_
#define KCONV_DEFORMABLE_CUDA_FOUR_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "half.h"

namespace kconv::deformable {

template <typename T>
inline constexpr int kFourAlignment =
    sizeof(T) * 4 < 16 ? static_cast<int>(sizeof(T)) * 4 : 16;

template <typename T>
struct alignas(kFourAlignment<T>) CudaFour {
  T element[4];
};

// to[j] = from[j].
template <typename T>
KCONV_HOST_DEVICE inline void CopyFour(const T* from, T* to) {
  const CudaFour<T> four = *reinterpret_cast<const CudaFour<T>*>(from);
  KCONV_UNROLL
  for (int j = 0; j < 4; ++j) to[j] = four.element[j];
}
template <typename T>
KCONV_HOST_DEVICE inline void PutFour(const T* from, T* to) {
  CudaFour<T> four;
  KCONV_UNROLL
  for (int j = 0; j < 4; ++j) four.element[j] = from[j];
  *reinterpret_cast<CudaFour<T>*>(to) = four;
}

// to[j] = from[j] for j < count, and 0 past them. `whole`: from is aligned, and
// count is a multiple of 4.
template <typename Element>
KCONV_HOST_DEVICE inline void LoadFour(const Element* from, int64_t count,
                                       bool whole, SumType<Element>* to) {
  if (whole && count > 0) {
    const CudaFour<Element> four =
        *reinterpret_cast<const CudaFour<Element>*>(from);
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) to[j] = Widen(four.element[j]);
  } else {
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) {
      to[j] = j < count ? Widen(from[j]) : SumType<Element>(0);
    }
  }
}

// to[j] = from[j] for j < count, alike.
template <typename Element>
KCONV_HOST_DEVICE inline void StoreFour(const SumType<Element>* from,
                                        int64_t count, bool whole,
                                        Element* to) {
  if (whole && count > 0) {
    CudaFour<Element> four;
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) Narrow(from[j], &four.element[j]);
    *reinterpret_cast<CudaFour<Element>*>(to) = four;
  } else {
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (j < count) Narrow(from[j], to + j);
    }
  }
}

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_FOUR_H_
