// The arithmetic of Problem::epilogue, for the kernels of all algorithms: a sum
// that is complete becomes activation(sum + bias), in the type of the sums,
// while it is in a register or in the cache; half types are rounded afterwards,
// once.
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

// What an activation cuts its argument to, infinite where it does not.
template <typename T>
struct Bounds {
  T low, high;

  explicit Bounds(Activation activation)
      : low(activation == Activation::kNone ? -__builtin_inf() : 0),
        high(activation == Activation::kRelu6 ? 6 : __builtin_inf()) {}
};

// One vector of S, a Simd<T, ...>. NaN stays NaN, as in TensorFlow's
// activations: every comparison with it is false.
template <typename S, typename T>
inline typename S::Vector Finish(typename S::Vector sum,
                                 typename S::Vector bias,
                                 const Bounds<T>& bounds) {
  const typename S::Vector low = S::Broadcast(bounds.low);
  const typename S::Vector high = S::Broadcast(bounds.high);
  const typename S::Vector x = sum + bias;
  const typename S::Vector raised = x < low ? low : x;
  return raised > high ? high : raised;
}

template <typename T, int kBytes, bool kBiasOfRows>
inline void FinishRowsBy(const Bounds<T> bounds, const T* bias, int64_t rows,
                         T* const* row, int64_t first, int64_t count) {
  using S = Simd<T, kBytes>;
  using One = Simd<T, sizeof(T)>;
  for (int64_t i = 0; i < rows; ++i) {
    T* to = row[i] + first;
    int64_t j = 0;
    for (; j + S::kLanes <= count; j += S::kLanes) {
      const auto add = kBiasOfRows ? S::Broadcast(bias[i]) : S::Load(bias + j);
      S::Store(to + j, Finish<S>(S::Load(to + j), add, bounds));
    }
    for (; j < count; ++j) {
      const auto add = One::Load(bias + (kBiasOfRows ? i : j));
      One::Store(to + j, Finish<One>(One::Load(to + j), add, bounds));
    }
  }
}

// Elements [first, first + count) of each row, in place. `bias` holds `count`
// elements or, where it is `of_rows`, one for each row; zeros if there is none.
template <typename T, int kBytes>
void FinishRows(Activation activation, const T* bias, bool of_rows,
                int64_t rows, T* const* row, int64_t first, int64_t count) {
  const Bounds<T> bounds(activation);
  (of_rows
       ? FinishRowsBy<T, kBytes, true>
       : FinishRowsBy<T, kBytes, false>)(bounds, bias, rows, row, first, count);
}

}  // namespace
}  // namespace kconv

#endif  // KCONV_EPILOGUE_H_
