// Units of several groups to a vector.

#ifndef KCONV_ALGORITHMS_GROUPED_THIN_H_
#define KCONV_ALGORITHMS_GROUPED_THIN_H_

#include "algorithms/grouped/tile.h"

namespace kconv::grouped {
namespace {

template <int... kLane>
struct LaneList {};
template <int kCount, int... kRest>
struct LanesUpTo : LanesUpTo<kCount - 1, kCount - 1, kRest...> {};
template <int... kLane>
struct LanesUpTo<0, kLane...> {
  typedef LaneList<kLane...> Type;
};

template <typename S, int kSlot, int kChannel, int... kLane>
KCONV_INLINE typename S::Vector SpreadBy(typename S::Vector v,
                                         LaneList<kLane...>) {
  return KCONV_SHUFFLE(v, v, (kLane / kSlot * kSlot + kChannel)...);
}

// One channel of each slot, in all lanes of the slot.
template <typename S, int kSlot, int kChannel>
KCONV_INLINE typename S::Vector Spread(typename S::Vector v) {
  return SpreadBy<S, kSlot, kChannel>(v, typename LanesUpTo<S::kLanes>::Type());
}

// Adds kTaps taps of the channels from kChannel on to the sums of kColumns
// columns. A place that several taps meet is spread once for all of them; the
// columns are neighbours then.
template <typename S, int kSlot, int kColumns, int kTaps, int kChannel,
          typename T>
KCONV_INLINE void AddTaps(const T* x, int64_t x_column, const T* w,
                          int64_t w_tap, int64_t channels,
                          typename S::Vector* sum) {
  if constexpr (kChannel < kSlot) {
    if (kChannel >= channels) return;
    LoadAgain();
    typename S::Vector weight[kTaps];
#pragma GCC unroll 4
    for (int t = 0; t < kTaps; ++t) {
      weight[t] = S::Load(w + t * w_tap + kChannel * S::kLanes);
    }
    const int64_t step = kTaps == 1 ? x_column : int64_t{S::kLanes};
#pragma GCC unroll 16
    for (int q = 0; q < kColumns + kTaps - 1; ++q) {
      const auto value = Spread<S, kSlot, kChannel>(S::Load(x + q * step));
#pragma GCC unroll 4
      for (int t = 0; t < kTaps; ++t) {
        if (q - t >= 0 && q - t < kColumns) sum[q - t] += value * weight[t];
      }
    }
    AddTaps<S, kSlot, kColumns, kTaps, kChannel + 1>(x, x_column, w, w_tap,
                                                     channels, sum);
  }
}

template <typename T, int kBytes, int kSlot, int kColumns>
__attribute__((noinline)) void ThinTile(const ImageRow<T>& r, int64_t first,
                                        int64_t count) {
  using S = Simd<T, kBytes>;
  typename S::Vector sum[kColumns] = {};
  FetchResults<kColumns, kBytes>(r, first, 0);
  const int64_t column = r.x_column, w_tap = r.w_tap, channels = r.channels;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* x = r.x[i] + first * column;
    const T* w = r.w[i];
    int64_t taps = r.taps;
    if (r.is_dense) {
      for (; taps >= 3; taps -= 3) {
        AddTaps<S, kSlot, kColumns, 3, 0>(x, column, w, w_tap, channels, sum);
        x += 3 * S::kLanes;
        w += 3 * w_tap;
      }
      if (taps == 2) {
        AddTaps<S, kSlot, kColumns, 2, 0>(x, column, w, w_tap, channels, sum);
        continue;
      }
    }
    for (; taps > 0; --taps) {
      AddTaps<S, kSlot, kColumns, 1, 0>(x, column, w, w_tap, channels, sum);
      x += S::kLanes;
      w += w_tap;
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < kColumns; ++c) {
    if (c < count) StoreSum<S>(sum[c], r, first + c, 0);
  }
}

template <typename T, int kBytes, int kSlot>
inline void ThinRow(const ImageRow<T>& r) {
  const int size = Sizes<8, 7, 4>::Best(r.columns);
  const auto tile = size == 8   ? ThinTile<T, kBytes, kSlot, 8>
                    : size == 7 ? ThinTile<T, kBytes, kSlot, 7>
                                : ThinTile<T, kBytes, kSlot, 4>;
  Cover(r.columns, size,
        [&](int64_t first, int64_t count) { tile(r, first, count); });
}

// sum[t][c] += channel c of x, spread, times y[t].
template <typename S, int kSlot, int kTaps, int kChannel>
KCONV_INLINE void AddPlace(typename S::Vector x, const typename S::Vector* y,
                           const bool* is_met, typename S::Vector* sum) {
  if constexpr (kChannel < kSlot) {
    const auto value = Spread<S, kSlot, kChannel>(x);
#pragma GCC unroll 4
    for (int t = 0; t < kTaps; ++t) {
      if (is_met == nullptr || is_met[t]) {
        sum[t * kSlot + kChannel] += value * y[t];
      }
    }
    AddPlace<S, kSlot, kTaps, kChannel + 1>(x, y, is_met, sum);
  }
}

// Sums of kTaps taps, from `tap` on.
template <typename T, int kBytes, int kSlot, int kTaps>
__attribute__((noinline)) void ThinTaps(const FilterRows<T>& r, int64_t tap) {
  using S = Simd<T, kBytes>;
  typename S::Vector sum[kTaps * kSlot] = {};
  const int64_t columns = r.columns;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* x = r.x[i] + tap * S::kLanes;
    const T* y = r.y[i];
    if (kTaps > 1 && r.is_dense) {
      // A place q meets columns q - t: at both ends some only. Zeros would do
      // for the others, but for a NaN.
      auto at_the_end = [&](int64_t q) __attribute__((always_inline)) {
        typename S::Vector values[kTaps] = {};
        bool is_met[kTaps];
#pragma GCC unroll 4
        for (int t = 0; t < kTaps; ++t) {
          is_met[t] = q >= t && q - t < columns;
          if (is_met[t]) values[t] = S::Load(y + (q - t) * S::kLanes);
        }
        AddPlace<S, kSlot, kTaps, 0>(S::Load(x + q * S::kLanes), values, is_met,
                                     sum);
      };
      int64_t q = 0;
      for (; q < kTaps - 1; ++q) at_the_end(q);
      for (; q < columns; ++q) {
        LoadAgain();
        typename S::Vector values[kTaps];
#pragma GCC unroll 4
        for (int t = 0; t < kTaps; ++t) {
          values[t] = S::Load(y + (q - t) * S::kLanes);
        }
        AddPlace<S, kSlot, kTaps, 0>(S::Load(x + q * S::kLanes), values,
                                     nullptr, sum);
      }
      for (; q < columns + kTaps - 1; ++q) at_the_end(q);
      continue;
    }
    for (int64_t j = 0; j < columns; ++j) {
      const typename S::Vector value = S::Load(y + j * S::kLanes);
#pragma GCC unroll 4
      for (int t = 0; t < kTaps; ++t) {
        AddPlace<S, kSlot, 1, 0>(S::Load(x + j * r.x_column + t * S::kLanes),
                                 &value, nullptr, sum + t * kSlot);
      }
    }
  }
  T* to = r.sums + tap * r.channels * S::kLanes;
#pragma GCC unroll 4
  for (int t = 0; t < kTaps; ++t) {
#pragma GCC unroll 8
    for (int c = 0; c < kSlot; ++c) {
      if (c < r.channels) {
        T* at = to + (t * r.channels + c) * S::kLanes;
        S::Store(at, S::Load(at) + sum[t * kSlot + c]);
      }
    }
  }
}

template <typename T, int kBytes, int kSlot>
inline void ThinFilter(const FilterRows<T>& r) {
  int64_t tap = 0;
  for (; tap + 3 <= r.taps; tap += 3) ThinTaps<T, kBytes, kSlot, 3>(r, tap);
  if (r.taps - tap == 2) ThinTaps<T, kBytes, kSlot, 2>(r, tap);
  if (r.taps - tap == 1) ThinTaps<T, kBytes, kSlot, 1>(r, tap);
}

}  // namespace
}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_THIN_H_
