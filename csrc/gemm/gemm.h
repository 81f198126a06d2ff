// The packed micro-kernel that im2col, 1x1, grouped and every other algorithm
// which ends in a matrix product share:
//
//   C[i][j] (+)= sum over p of A(i, p) * B[p][j]
//
// A is read by broadcast, from where it lies: rows by pointers, or columns by a
// stride. B is packed into a panel of at most `panel` columns that stays in the
// first-level cache. C is reached through row pointers. The sum over p runs
// upwards in one accumulator, so that no blocking of i or j changes a bit.

#ifndef KCONV_GEMM_GEMM_H_
#define KCONV_GEMM_GEMM_H_

#include <stdint.h>

#include "activation.h"
#include "isa.h"

namespace kconv {

// Rows [first, first + rows) of panels that are `depth` rows deep.
struct PanelBlock {
  int64_t first;
  int64_t rows;
  int64_t depth;
};

template <typename T>
struct GemmKernel {
  const char* isa;
  int64_t lanes;  // a panel is padded to a multiple of them
  int64_t panel;  // columns of a full panel

  // A(i, p) = a[i][a_offset + p]. C's element (i, j) is c[i][c_offset + j].
  // `columns` is at most `panel`; the panel b holds [depth][columns rounded up
  // to lanes].
  void (*by_rows)(int64_t rows, int64_t columns, int64_t depth,
                  const T* const* a, int64_t a_offset, const T* b, T* const* c,
                  int64_t c_offset, bool accumulate);

  // A(i, p) = a[i + p * a_stride].
  void (*by_columns)(int64_t rows, int64_t columns, int64_t depth, const T* a,
                     int64_t a_stride, const T* b, T* const* c,
                     int64_t c_offset, bool accumulate);

  // Packs b[p * row_stride + j], for p < block.rows, into panels that follow
  // one another: that of the columns from j on begins at panels + block.depth *
  // j. Zeros fill the lanes past `columns` of the last one.
  void (*pack)(const PanelBlock& block, int64_t columns, const T* b,
               int64_t row_stride, T* panels);

  // The same for b[p + j * column_stride]: panels of the transpose.
  void (*pack_transposed)(const PanelBlock& block, int64_t columns, const T* b,
                          int64_t column_stride, T* panels);

  // C[i][j] = activation(C[i][j] + bias), where the bias is bias[j] or, if it
  // is `of_rows`, bias[i].
  void (*finish)(Activation activation, const T* bias, bool of_rows,
                 int64_t rows, T* const* c, int64_t c_offset, int64_t columns);
};

template <typename T>
const GemmKernel<T>& GemmKernelFor(Isa isa);

}  // namespace kconv

#endif  // KCONV_GEMM_GEMM_H_
