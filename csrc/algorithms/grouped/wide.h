// Units of one group, whose output channels fill a vector or more.

#ifndef KCONV_ALGORITHMS_GROUPED_WIDE_H_
#define KCONV_ALGORITHMS_GROUPED_WIDE_H_

#include "algorithms/grouped/tile.h"

namespace kconv::grouped {
namespace {

// kColumns columns, and kVectors vectors of channels from `lane` on.
template <typename T, int kBytes, int kVectors, int kColumns>
__attribute__((noinline)) void WideTile(const ImageRow<T>& r, int64_t lane,
                                        int64_t first, int64_t count) {
  using S = Simd<T, kBytes>;
  typename S::Vector sum[kColumns][kVectors] = {};
  FetchResults<kColumns, kVectors * kBytes>(r, first, lane);
  const int64_t column = r.x_column, width = r.y_width;
  const int64_t w_tap = r.w_tap, channels = r.channels;
  for (int64_t i = 0; i < r.rows; ++i) {
    // Three columns to a pointer: twelve would not leave it to the registers.
    const T* x[(kColumns + 2) / 3];
#pragma GCC unroll 4
    for (int j = 0; j < kColumns; j += 3) {
      x[j / 3] = r.x[i] + (first + j) * column;
    }
    const T* tap = r.w[i] + lane;
    for (int64_t t = 0; t < r.taps; ++t, tap += w_tap) {
      const T* w = tap;
      for (int64_t c = 0; c < channels; ++c, w += width) {
        typename S::Vector weight[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          weight[v] = S::Load(w + v * S::kLanes);
        }
#pragma GCC unroll 16
        for (int j = 0; j < kColumns; ++j) {
          const auto value = S::Broadcast(x[j / 3][j % 3 * column]);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sum[j][v] += value * weight[v];
        }
#pragma GCC unroll 4
        for (int j = 0; j < kColumns; j += 3) ++x[j / 3];
      }
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < kColumns; ++j) {
    if (j < count) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        StoreSum<S>(sum[j][v], r, first + j, lane + v * S::kLanes);
      }
    }
  }
}

// The same for one vector and columns that are neighbours: a place that kTaps
// taps meet is broadcast once for all of them. Fewer broadcasts leave the
// processor more room for the sums.
template <typename S, int kColumns, int kTaps, typename T>
KCONV_INLINE void AddDenseTaps(const T* from, int64_t place, const T* w,
                               int64_t w_tap, int64_t channels, int64_t width,
                               typename S::Vector* sum) {
  constexpr int kPlaces = kColumns + kTaps - 1;
  const T* x[(kPlaces + 2) / 3];
#pragma GCC unroll 8
  for (int q = 0; q < kPlaces; q += 3) x[q / 3] = from + q * place;
  for (int64_t c = 0; c < channels; ++c, w += width) {
    typename S::Vector weight[kTaps];
#pragma GCC unroll 4
    for (int t = 0; t < kTaps; ++t) weight[t] = S::Load(w + t * w_tap);
#pragma GCC unroll 16
    for (int q = 0; q < kPlaces; ++q) {
      const auto value = S::Broadcast(x[q / 3][q % 3 * place]);
#pragma GCC unroll 4
      for (int t = 0; t < kTaps; ++t) {
        if (q - t >= 0 && q - t < kColumns) sum[q - t] += value * weight[t];
      }
    }
#pragma GCC unroll 8
    for (int q = 0; q < kPlaces; q += 3) ++x[q / 3];
  }
}

template <typename T, int kBytes, int kColumns>
__attribute__((noinline)) void DenseTile(const ImageRow<T>& r, int64_t lane,
                                         int64_t first, int64_t count) {
  using S = Simd<T, kBytes>;
  typename S::Vector sum[kColumns] = {};
  FetchResults<kColumns, kBytes>(r, first, lane);
  const int64_t place = r.x_width, width = r.y_width;
  const int64_t w_tap = r.w_tap, channels = r.channels;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* x = r.x[i] + first * place;
    const T* w = r.w[i] + lane;
    int64_t taps = r.taps;
    for (; taps >= 3; taps -= 3, x += 3 * place, w += 3 * w_tap) {
      AddDenseTaps<S, kColumns, 3>(x, place, w, w_tap, channels, width, sum);
    }
    if (taps == 2) {
      AddDenseTaps<S, kColumns, 2>(x, place, w, w_tap, channels, width, sum);
    } else if (taps == 1) {
      AddDenseTaps<S, kColumns, 1>(x, place, w, w_tap, channels, width, sum);
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < kColumns; ++j) {
    if (j < count) StoreSum<S>(sum[j], r, first + j, lane);
  }
}

template <typename T>
using WideTileOf = void (*)(const ImageRow<T>&, int64_t, int64_t, int64_t);

template <typename T, int kBytes>
inline void OneVector(const ImageRow<T>& r, int64_t lane) {
  int size;
  WideTileOf<T> tile;
  if (r.is_dense && r.taps > 1) {
    size = Sizes<8, 7, 4>::Best(r.columns);
    tile = size == 8   ? DenseTile<T, kBytes, 8>
           : size == 7 ? DenseTile<T, kBytes, 7>
                       : DenseTile<T, kBytes, 4>;
  } else {
    size = Sizes<12, 7>::Best(r.columns);
    tile = size == 12 ? WideTile<T, kBytes, 1, 12> : WideTile<T, kBytes, 1, 7>;
  }
  Cover(r.columns, size,
        [&](int64_t first, int64_t count) { tile(r, lane, first, count); });
}

template <typename T, int kBytes>
inline void TwoVectors(const ImageRow<T>& r, int64_t lane) {
  const int size = Sizes<6, 5, 4, 2>::Best(r.columns);
  const WideTileOf<T> tile = size == 6   ? WideTile<T, kBytes, 2, 6>
                             : size == 5 ? WideTile<T, kBytes, 2, 5>
                             : size == 4 ? WideTile<T, kBytes, 2, 4>
                                         : WideTile<T, kBytes, 2, 2>;
  Cover(r.columns, size,
        [&](int64_t first, int64_t count) { tile(r, lane, first, count); });
}

template <typename T, int kBytes>
inline void WideRow(const ImageRow<T>& r) {
  constexpr int64_t kLanes = Simd<T, kBytes>::kLanes;
  int64_t lane = 0;
  for (; lane + 2 * kLanes <= r.lanes; lane += 2 * kLanes) {
    TwoVectors<T, kBytes>(r, lane);
  }
  if (lane < r.lanes) OneVector<T, kBytes>(r, lane);
}

// kRows rows of the filter, (tap, channel) pairs from `first` on, of which
// those before `from` are another tile's. The pairs of a column lie one behind
// the other in a staged row.
template <typename T, int kBytes, int kVectors, int kRows>
__attribute__((noinline)) void WideFilterTile(const FilterRows<T>& r,
                                              int64_t lane, int64_t first,
                                              int64_t from, int64_t end) {
  using S = Simd<T, kBytes>;
  typename S::Vector sum[kRows][kVectors] = {};
  const int64_t column = r.x_column, width = r.y_width, columns = r.columns;
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* x = r.x[i] + first;
    const T* y = r.y[i] + lane;
    for (int64_t j = 0; j < columns; ++j, x += column, y += width) {
      typename S::Vector gradient[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        gradient[v] = S::Load(y + v * S::kLanes);
      }
#pragma GCC unroll 16
      for (int k = 0; k < kRows; ++k) {
        const auto value = S::Broadcast(x[k]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sum[k][v] += value * gradient[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < kRows; ++k) {
    if (first + k < from || first + k >= end) continue;
    T* to = r.sums + (first + k) * width + lane;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      S::Store(to + v * S::kLanes, S::Load(to + v * S::kLanes) + sum[k][v]);
    }
  }
}

template <typename T, int kBytes, int kVectors>
inline void WideFilterVectors(const FilterRows<T>& r, int64_t lane) {
  constexpr int kRows = 12 / kVectors;
  const int64_t total = r.taps * r.channels;
  for (int64_t at = 0; at < total; at += kRows) {
    const int64_t first = Max(0, Min(at, total - kRows));
    WideFilterTile<T, kBytes, kVectors, kRows>(r, lane, first, at, total);
  }
}

template <typename T, int kBytes>
inline void WideFilter(const FilterRows<T>& r) {
  constexpr int64_t kLanes = Simd<T, kBytes>::kLanes;
  int64_t lane = 0;
  for (; lane + 2 * kLanes <= r.y_width; lane += 2 * kLanes) {
    WideFilterVectors<T, kBytes, 2>(r, lane);
  }
  if (lane < r.y_width) WideFilterVectors<T, kBytes, 1>(r, lane);
}

}  // namespace
}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_WIDE_H_
