// Sums of a filter gradient. Part of generic.h.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_GENERIC_FILTER_H_
#define KCONV_ALGORITHMS_DEPTHWISE_GENERIC_FILTER_H_

#include "algorithms/depthwise/depthwise.h"
#include "simd.h"

namespace kconv::depthwise {
namespace {

template <typename T, int kBytes>
class FilterKernel {
 public:
  static void Run(const FilterRows<T>& p) {
    switch (p.taps_x) {
      case 1:
        return WithRows<1>(p);
      case 2:
        return WithRows<2>(p);
      case 3:
        return WithRows<3>(p);
      case 4:
        return WithRows<4>(p);
      case 5:
        return WithRows<5>(p);
      case 6:
        return WithStride<6, 1>(p);
      default:
        return WithStride<7, 1>(p);
    }
  }

 private:
  using S = Simd<T, kBytes>;
  using V = typename S::Vector;

  template <int kTaps>
  static void WithRows(const FilterRows<T>& p) {
    if (p.taps_y == 1) return WithStride<kTaps, 1>(p);
    if (p.taps_y == 2) return WithStride<kTaps, 2>(p);
    if constexpr (RowsOfTaps(kTaps) > 2) WithStride<kTaps, 3>(p);
  }

  template <int kTaps, int kRows>
  static void WithStride(const FilterRows<T>& p) {
    if (p.stride == 1) return Sum<kTaps, kRows, 1>(p);
    if (p.stride == 2) return Sum<kTaps, kRows, 2>(p);
    Sum<kTaps, kRows, 0>(p);
  }

  // Columns [column, column + kColumns) of a row. A stride of 0 is any.
  template <int kTaps, int kRows, int kStride, int kColumns, bool kClip>
  static inline __attribute__((always_inline)) void Add(const FilterRows<T>& p,
                                                        int64_t row,
                                                        int64_t column,
                                                        V (*sum)[kTaps]) {
    constexpr int kReads = (kColumns - 1) * kStride + kTaps;
    V gradient[kColumns];
    const T* from =
        p.gradient + row * p.gradient_row + column * p.gradient_pitch;
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      gradient[c] = S::Load(from);
      Advance(&from, p.gradient_pitch);
    }
    const int64_t first = p.stride * column;
    const int64_t low = p.read.low - first;
    const int64_t span = p.read.high - p.read.low;
    const int64_t at = p.read.offset + row * p.read_row + first * p.read.pitch;
#pragma GCC unroll 4
    for (int y = 0; y < kRows; ++y) {
      const T* at_y = p.read.data + at + y * p.read_y;
      int64_t number = -low;
#pragma GCC unroll 64
      for (int i = 0; i < kReads; ++i, Advance(&at_y, p.read.pitch)) {
        if (kClip) {
          const bool is_there =
              static_cast<uint64_t>(number) < static_cast<uint64_t>(span);
          Advance(&number, 1);
          if (!is_there) continue;
        }
        const V x = S::Load(at_y);
        if (kStride == 0) {
          sum[y][i] += x * gradient[0];
          continue;
        }
        constexpr int kStep = kStride == 0 ? 1 : kStride;
#pragma GCC unroll 8
        for (int t = 0; t < kTaps; ++t) {
          if (i >= t && (i - t) % kStep == 0 && (i - t) / kStep < kColumns) {
            sum[y][t] += x * gradient[(i - t) / kStep];
          }
        }
      }
    }
  }

  template <int kColumns>
  static inline __attribute__((always_inline)) void Fetch(
      const FilterRows<T>& p, int64_t row, int64_t column) {
    const T* gradient = p.gradient + row * p.gradient_row + p.fetch_gradient +
                        column * p.gradient_pitch;
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) {
      __builtin_prefetch(gradient + c * p.gradient_pitch);
    }
    const T* from = p.read.data + p.read.offset + row * p.read_row + p.fetch +
                    p.stride * column * p.read.pitch;
    for (int64_t y = 0; y < p.fetch_rows; ++y) {
      for (int64_t i = 0; i < kColumns * p.stride; ++i) {
        __builtin_prefetch(from + y * p.read_y + i * p.read.pitch);
      }
    }
  }

  template <int kTaps, int kRows, int kStride>
  static void Sum(const FilterRows<T>& p) {
    constexpr int kColumns = kStride == 0 ? 1 : kTaps <= 5 ? 4 : 7;
    constexpr int kReads = (kColumns - 1) * kStride + kTaps;
    V sum[kRows][kTaps];
#pragma GCC unroll 4
    for (int y = 0; y < kRows; ++y) {
#pragma GCC unroll 8
      for (int t = 0; t < kTaps; ++t) {
        sum[y][t] = S::Load(p.sums + y * p.sums_y + t * S::kLanes);
      }
    }
    for (int64_t row = 0; row < p.rows; ++row) {
      int64_t column = 0;
      for (; column + kColumns <= p.columns; column += kColumns) {
        const int64_t first = p.stride * column;
        if (p.fetch_rows > 0) Fetch<kColumns>(p, row, column);
        if (first >= p.read.low && first + kReads <= p.read.high) {
          Add<kTaps, kRows, kStride, kColumns, false>(p, row, column, sum);
        } else {
          Add<kTaps, kRows, kStride, kColumns, true>(p, row, column, sum);
        }
      }
      for (; column < p.columns; ++column) {
        Add<kTaps, kRows, kStride, 1, true>(p, row, column, sum);
      }
    }
#pragma GCC unroll 4
    for (int y = 0; y < kRows; ++y) {
#pragma GCC unroll 8
      for (int t = 0; t < kTaps; ++t) {
        S::Store(p.sums + y * p.sums_y + t * S::kLanes, sum[y][t]);
      }
    }
  }
};

}  // namespace
}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_GENERIC_FILTER_H_
