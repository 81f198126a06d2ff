// The arithmetic of ConvArgs::bias and Problem::epilogue, for the kernels of
// all algorithms: sums that are complete become activation(sum + bias), in
// place and in the type of the sums. To be called while they are in the cache;
// half types are rounded afterwards, once.
//
// As simd.h for files compiled for an instruction set only, and of internal
// linkage for the same reason.

#ifndef KCONV_EPILOGUE_H_
#define KCONV_EPILOGUE_H_

#include <stdint.h>

#include "activation.h"
#include "simd.h"

namespace kconv {
namespace {

// Of one vector of S. NaN stays NaN, as in TensorFlow's activations: every
// comparison with it is false.
template <Activation kActivation, typename S>
inline typename S::Vector Activate(typename S::Vector x) {
  if constexpr (kActivation != Activation::kNone) {
    const typename S::Vector zero = {};
    x = x < zero ? zero : x;
  }
  if constexpr (kActivation == Activation::kRelu6) {
    const typename S::Vector six = S::Broadcast(6);
    x = x > six ? six : x;
  }
  return x;
}

template <typename T, int kBytes, Activation kActivation, bool kOfRows>
inline void FinishRowsBy(const T* bias, int64_t rows, T* const* row,
                         int64_t first, int64_t count) {
  using S = Simd<T, kBytes>;
  using One = Simd<T, sizeof(T)>;
  for (int64_t i = 0; i < rows; ++i) {
    T* to = row[i] + first;
    int64_t j = 0;
    for (; j + S::kLanes <= count; j += S::kLanes) {
      const auto add = kOfRows ? S::Broadcast(bias[i]) : S::Load(bias + j);
      S::Store(to + j, Activate<kActivation, S>(S::Load(to + j) + add));
    }
    for (; j < count; ++j) {
      const auto add = One::Load(bias + (kOfRows ? i : j));
      One::Store(to + j, Activate<kActivation, One>(One::Load(to + j) + add));
    }
  }
}

// Elements [first, first + count) of each row. `bias` holds `count` elements
// or, where it is `of_rows`, one for each row; zeros where there is none.
template <typename T, int kBytes>
void FinishRows(Activation activation, const T* bias, bool of_rows,
                int64_t rows, T* const* row, int64_t first, int64_t count) {
  const auto finish = [&](auto by_columns, auto by_rows) {
    (of_rows ? by_rows : by_columns)(bias, rows, row, first, count);
  };
  switch (activation) {
    case Activation::kNone:
      return finish(FinishRowsBy<T, kBytes, Activation::kNone, false>,
                    FinishRowsBy<T, kBytes, Activation::kNone, true>);
    case Activation::kRelu:
      return finish(FinishRowsBy<T, kBytes, Activation::kRelu, false>,
                    FinishRowsBy<T, kBytes, Activation::kRelu, true>);
    case Activation::kRelu6:
      return finish(FinishRowsBy<T, kBytes, Activation::kRelu6, false>,
                    FinishRowsBy<T, kBytes, Activation::kRelu6, true>);
  }
}

}  // namespace
}  // namespace kconv

#endif  // KCONV_EPILOGUE_H_
