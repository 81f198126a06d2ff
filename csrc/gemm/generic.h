// The micro-kernel, written once over the vector width; isa/*.cc instantiate
// it.
//
// A register tile holds kRows x kVectors vectors of C. Each step over p loads
// kVectors vectors of B and broadcasts kRows scalars of A. With 6 rows and 2
// vectors AVX2's 16 registers hold 12 sums, 2 vectors of B and the broadcast;
// with 6 and 4 AVX-512's 32 hold 24, 4 and one.

#ifndef KCONV_GEMM_GENERIC_H_
#define KCONV_GEMM_GENERIC_H_

#include "epilogue.h"
#include "gemm/gemm.h"
#include "simd.h"

namespace kconv {
namespace {

// How A is read. Both are small enough to live in registers.
template <typename T, int kRows>
struct RowsOfA {
  const T* row[kRows];
  inline T At(int i, int64_t p) const { return row[i][p]; }
};

template <typename T>
struct ColumnsOfA {
  const T* a;
  int64_t stride;
  inline T At(int i, int64_t p) const { return a[i + p * stride]; }
};

template <typename T, int kBytes, int kRows, int kVectors, typename A>
inline void Tile(const A& a, int64_t depth, const T* b, T* const* c,
                 int64_t c_offset, int64_t columns, bool accumulate) {
  using S = Simd<T, kBytes>;
  typename S::Vector sum[kRows][kVectors] = {};
  constexpr int64_t kWidth = kVectors * S::kLanes;
  // C is wanted when the sums are done, and would be waited for then.
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int64_t byte = 0; byte < kVectors * kBytes; byte += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(c[i] + c_offset) + byte,
                         1);
    }
  }
#pragma GCC unroll 4
  for (int64_t p = 0; p < depth; ++p) {
    typename S::Vector bv[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      bv[j] = S::Load(b + p * kWidth + j * S::kLanes);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const typename S::Vector av = S::Broadcast(a.At(i, p));
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] += av * bv[j];
    }
  }
  if (columns == kWidth) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      T* to = c[i] + c_offset;
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        typename S::Vector v = sum[i][j];
        if (accumulate) v += S::Load(to + j * S::kLanes);
        S::Store(to + j * S::kLanes, v);
      }
    }
    return;
  }
  // The last columns of C: through a copy, so as to write none past the end.
  T spill[kRows][kWidth];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      S::Store(&spill[i][j * S::kLanes], sum[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    T* to = c[i] + c_offset;
    for (int64_t j = 0; j < columns; ++j) {
      to[j] = accumulate ? to[j] + spill[i][j] : spill[i][j];
    }
  }
}

template <typename T, int kBytes, int kRows, int kVectors>
__attribute__((noinline)) void TileByRows(const T* const* a, int64_t a_offset,
                                          int64_t depth, const T* b,
                                          T* const* c, int64_t c_offset,
                                          int64_t columns, bool accumulate) {
  RowsOfA<T, kRows> rows;
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) rows.row[i] = a[i] + a_offset;
  Tile<T, kBytes, kRows, kVectors>(rows, depth, b, c, c_offset, columns,
                                   accumulate);
}

template <typename T, int kBytes, int kRows, int kVectors>
__attribute__((noinline)) void TileByColumns(const T* a, int64_t a_stride,
                                             int64_t depth, const T* b,
                                             T* const* c, int64_t c_offset,
                                             int64_t columns, bool accumulate) {
  Tile<T, kBytes, kRows, kVectors>(ColumnsOfA<T>{a, a_stride}, depth, b, c,
                                   c_offset, columns, accumulate);
}

// Rows of the next tile of `rows`. One or two rows alone would wait for their
// few sums, so they share with the tile before.
template <int kRows>
inline bool TakesWholeTile(int64_t rows) {
  return rows >= kRows &&
         (kRows < 6 || (rows != kRows + 1 && rows != kRows + 2));
}

// Fetches the beginnings of the rows that the next tile reads: where they lie
// far apart, as in an image, the hardware's prefetcher finds no stream.
template <typename T, int kRows>
inline void FetchRows(const T* const* a, int64_t a_offset) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const char* at = reinterpret_cast<const char*>(a[i] + a_offset);
#pragma GCC unroll 4
    for (int line = 0; line < 4; ++line) __builtin_prefetch(at + 64 * line);
  }
}

// Whole tiles of kRows rows, then smaller ones of the rows left over.
template <typename T, int kBytes, int kRows, int kVectors>
struct Panel {
  static void ByRows(int64_t rows, int64_t columns, int64_t depth,
                     const T* const* a, int64_t a_offset, const T* b,
                     T* const* c, int64_t c_offset, bool accumulate) {
    int64_t i = 0;
    for (; TakesWholeTile<kRows>(rows - i); i += kRows) {
      if (i + 2 * kRows <= rows) FetchRows<T, kRows>(a + i + kRows, a_offset);
      TileByRows<T, kBytes, kRows, kVectors>(a + i, a_offset, depth, b, c + i,
                                             c_offset, columns, accumulate);
    }
    if constexpr (kRows > 1) {
      if (i < rows) {
        // 7 and 8 rows are 4 and 3 or 4.
        constexpr int kLess = kRows == 6 ? 4 : kRows - 1;
        if (kRows == 6 && rows - i == 5) {
          TileByRows<T, kBytes, 5, kVectors>(a + i, a_offset, depth, b, c + i,
                                             c_offset, columns, accumulate);
          return;
        }
        Panel<T, kBytes, kLess, kVectors>::ByRows(rows - i, columns, depth,
                                                  a + i, a_offset, b, c + i,
                                                  c_offset, accumulate);
      }
    }
  }

  static void ByColumns(int64_t rows, int64_t columns, int64_t depth,
                        const T* a, int64_t a_stride, const T* b, T* const* c,
                        int64_t c_offset, bool accumulate) {
    int64_t i = 0;
    for (; TakesWholeTile<kRows>(rows - i); i += kRows) {
      TileByColumns<T, kBytes, kRows, kVectors>(
          a + i, a_stride, depth, b, c + i, c_offset, columns, accumulate);
    }
    if constexpr (kRows > 1) {
      if (i < rows) {
        constexpr int kLess = kRows == 6 ? 4 : kRows - 1;
        if (kRows == 6 && rows - i == 5) {
          TileByColumns<T, kBytes, 5, kVectors>(
              a + i, a_stride, depth, b, c + i, c_offset, columns, accumulate);
          return;
        }
        Panel<T, kBytes, kLess, kVectors>::ByColumns(rows - i, columns, depth,
                                                     a + i, a_stride, b, c + i,
                                                     c_offset, accumulate);
      }
    }
  }
};

// The narrowest panel that holds the columns.
template <typename T, int kBytes, int kRows, int kVectors>
void ByRows(int64_t rows, int64_t columns, int64_t depth, const T* const* a,
            int64_t a_offset, const T* b, T* const* c, int64_t c_offset,
            bool accumulate) {
  if constexpr (kVectors > 1) {
    if (columns <= (kVectors - 1) * Simd<T, kBytes>::kLanes) {
      return ByRows<T, kBytes, kRows, kVectors - 1>(
          rows, columns, depth, a, a_offset, b, c, c_offset, accumulate);
    }
  }
  Panel<T, kBytes, kRows, kVectors>::ByRows(rows, columns, depth, a, a_offset,
                                            b, c, c_offset, accumulate);
}

template <typename T, int kBytes, int kRows, int kVectors>
void ByColumns(int64_t rows, int64_t columns, int64_t depth, const T* a,
               int64_t a_stride, const T* b, T* const* c, int64_t c_offset,
               bool accumulate) {
  if constexpr (kVectors > 1) {
    if (columns <= (kVectors - 1) * Simd<T, kBytes>::kLanes) {
      return ByColumns<T, kBytes, kRows, kVectors - 1>(
          rows, columns, depth, a, a_stride, b, c, c_offset, accumulate);
    }
  }
  Panel<T, kBytes, kRows, kVectors>::ByColumns(
      rows, columns, depth, a, a_stride, b, c, c_offset, accumulate);
}

// Rows ahead that are fetched while one is packed: the rows of a filter lie
// kilobytes apart, where no hardware prefetcher follows.
constexpr int64_t kRowsAhead = 8;

template <typename T, int kBytes, int kPanel>
void Pack(const PanelBlock& block, int64_t columns, const T* b,
          int64_t row_stride, T* panels) {
  using S = Simd<T, kBytes>;
  const int64_t depth = block.rows;
  for (int64_t p = 0; p < depth; ++p, b += row_stride) {
    const T* ahead = b + Min(kRowsAhead, depth - 1 - p) * row_stride;
    for (int64_t j = 0; j < columns; j += kPanel) {
      const int64_t count = Min(kPanel, columns - j);
      const int64_t width = (count + S::kLanes - 1) / S::kLanes * S::kLanes;
      T* to = panels + block.depth * j + (block.first + p) * width;
      if (count == kPanel) {
#pragma GCC unroll 4
        for (int64_t l = 0; l < kPanel; l += S::kLanes) {
          __builtin_prefetch(ahead + j + l);
          S::Store(to + l, S::Load(b + j + l));
        }
      } else {
        for (int64_t l = 0; l < width; ++l) to[l] = l < count ? b[j + l] : T(0);
      }
    }
  }
}

// Blocks of 4 x 4 are transposed in registers, 16 steps of p at a time: a cache
// line of each column.
template <typename T, int kBytes, int kPanel>
void PackTransposed(const PanelBlock& block, int64_t columns, const T* b,
                    int64_t column_stride, T* panels) {
  using S = Simd<T, kBytes>;
  const int64_t depth = block.rows;
  for (int64_t j = 0; j < columns; j += kPanel) {
    const int64_t count = Min(kPanel, columns - j);
    const int64_t width = (count + S::kLanes - 1) / S::kLanes * S::kLanes;
    T* panel = panels + block.depth * j + block.first * width;
    const T* from = b + j * column_stride;
    for (int64_t begin = 0; begin < depth; begin += 16) {
      const int64_t end = Min(begin + 16, depth);
      int64_t l = 0;
      for (; l + 4 <= count; l += 4) {
        const T* column = from + l * column_stride;
        int64_t p = begin;
        for (; p + 4 <= end; p += 4) {
          Transpose4x4(column + p, column_stride, panel + p * width + l, width);
        }
        for (; p < end; ++p) {
          for (int i = 0; i < 4; ++i) {
            panel[p * width + l + i] = column[i * column_stride + p];
          }
        }
      }
      for (; l < width; ++l) {
        for (int64_t p = begin; p < end; ++p) {
          panel[p * width + l] = l < count ? from[l * column_stride + p] : T(0);
        }
      }
    }
  }
}

template <typename T, int kBytes, int kRows, int kVectors>
constexpr GemmKernel<T> MakeGemmKernel(const char* isa) {
  return {isa,
          Simd<T, kBytes>::kLanes,
          kVectors * Simd<T, kBytes>::kLanes,
          ByRows<T, kBytes, kRows, kVectors>,
          ByColumns<T, kBytes, kRows, kVectors>,
          Pack<T, kBytes, kVectors * Simd<T, kBytes>::kLanes>,
          PackTransposed<T, kBytes, kVectors * Simd<T, kBytes>::kLanes>,
          FinishRows<T, kBytes>};
}

}  // namespace
}  // namespace kconv

#endif  // KCONV_GEMM_GENERIC_H_
