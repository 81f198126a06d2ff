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
  for (int64_t i = 0; i < r.rows; ++i) {
    const T* x[kColumns];
#pragma GCC unroll 16
    for (int j = 0; j < kColumns; ++j) x[j] = r.x[i] + (first + j) * column;
    const T* tap = r.w[i] + lane;
    int64_t at = 0;
    for (int64_t t = 0; t < r.taps; ++t, tap += r.w_tap) {
      const T* w = tap;
      for (int64_t c = 0; c < r.channels; ++c, ++at, w += width) {
        typename S::Vector weight[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          weight[v] = S::Load(w + v * S::kLanes);
        }
#pragma GCC unroll 16
        for (int j = 0; j < kColumns; ++j) {
          const auto value = S::Broadcast(x[j][at]);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) sum[j][v] += value * weight[v];
        }
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

template <typename T>
using WideTileOf = void (*)(const ImageRow<T>&, int64_t, int64_t, int64_t);

template <typename T, int kBytes, int kVectors>
struct WideTiles;

template <typename T, int kBytes>
struct WideTiles<T, kBytes, 1> : Sizes<12, 8, 7, 5> {
  static WideTileOf<T> Of(int size) {
    return size == 12  ? WideTile<T, kBytes, 1, 12>
           : size == 8 ? WideTile<T, kBytes, 1, 8>
           : size == 7 ? WideTile<T, kBytes, 1, 7>
                       : WideTile<T, kBytes, 1, 5>;
  }
};

template <typename T, int kBytes>
struct WideTiles<T, kBytes, 2> : Sizes<6, 5, 4, 2> {
  static WideTileOf<T> Of(int size) {
    return size == 6   ? WideTile<T, kBytes, 2, 6>
           : size == 5 ? WideTile<T, kBytes, 2, 5>
           : size == 4 ? WideTile<T, kBytes, 2, 4>
                       : WideTile<T, kBytes, 2, 2>;
  }
};

template <typename T, int kBytes, int kVectors>
inline void WideVectors(const ImageRow<T>& r, int64_t lane) {
  using Tiles = WideTiles<T, kBytes, kVectors>;
  const int size = Tiles::Best(r.columns);
  const auto tile = Tiles::Of(size);
  Cover(r.columns, size,
        [&](int64_t first, int64_t count) { tile(r, lane, first, count); });
}

template <typename T, int kBytes>
inline void WideRow(const ImageRow<T>& r) {
  constexpr int64_t kLanes = Simd<T, kBytes>::kLanes;
  int64_t lane = 0;
  for (; lane + 2 * kLanes <= r.y_width; lane += 2 * kLanes) {
    WideVectors<T, kBytes, 2>(r, lane);
  }
  if (lane < r.y_width) WideVectors<T, kBytes, 1>(r, lane);
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
