// The end of a sum that was cut into slices, each with a partial result.

#ifndef KCONV_SLICES_H_
#define KCONV_SLICES_H_

#include <algorithm>
#include <cstdint>

#include "conv.h"
#include "half.h"
#include "split.h"

namespace kconv {

// Adds the partial results of `slices` slices, `elements` each and one behind
// the other, and rounds the sums into `to`. They are added in pairs, slice i
// takes up i + 1, then i + 2, i + 4, ...: a tree that no number of threads
// changes.
template <typename Element>
void AddSlices(SumType<Element>* partials, int64_t slices, int64_t elements,
               Element* to, Context* ctx) {
  using Sum = SumType<Element>;
  constexpr int64_t kChunk = 4096;
  ctx->ParallelFor(
      CeilDivide(elements, kChunk), 1e-6 * static_cast<double>(slices),
      [&](int64_t begin, int64_t end, int) {
        const int64_t first = begin * kChunk;
        const int64_t count = std::min(end * kChunk, elements) - first;
        for (int64_t step = 1; step < slices; step *= 2) {
          for (int64_t i = 0; i + step < slices; i += 2 * step) {
            Sum* sum = partials + i * elements + first;
            const Sum* other = sum + step * elements;
            for (int64_t e = 0; e < count; ++e) sum[e] += other[e];
          }
        }
        for (int64_t e = 0; e < count; ++e) {
          Narrow(partials[first + e], to + first + e);
        }
      });
}

}  // namespace kconv

#endif  // KCONV_SLICES_H_
