// Panels of B for the micro-kernel, from elements of any type.

#ifndef KCONV_GEMM_PANELS_H_
#define KCONV_GEMM_PANELS_H_

#include <algorithm>
#include <type_traits>

#include "gemm/gemm.h"
#include "half.h"
#include "split.h"

namespace kconv {

// Packs b[p * row_stride + j * column_stride]; one of the strides is 1. See
// GemmKernel::pack.
template <typename Element, typename Sum>
void PackPanels(const GemmKernel<Sum>& kernel, const PanelBlock& block,
                int64_t columns, const Element* b, int64_t row_stride,
                int64_t column_stride, Sum* panels) {
  if constexpr (std::is_same_v<Element, Sum>) {
    if (column_stride == 1) {
      kernel.pack(block, columns, b, row_stride, panels);
    } else {
      kernel.pack_transposed(block, columns, b, column_stride, panels);
    }
  } else {
    for (int64_t j = 0; j < columns; j += kernel.panel) {
      const int64_t count = std::min(kernel.panel, columns - j);
      const int64_t width = RoundUp(count, kernel.lanes);
      Sum* to = panels + block.depth * j + block.first * width;
      for (int64_t p = 0; p < block.rows; ++p, to += width) {
        const Element* from = b + p * row_stride + j * column_stride;
        for (int64_t l = 0; l < count; ++l) {
          to[l] = Widen(from[l * column_stride]);
        }
        std::fill(to + count, to + width, Sum(0));
      }
    }
  }
}

}  // namespace kconv

#endif  // KCONV_GEMM_PANELS_H_
