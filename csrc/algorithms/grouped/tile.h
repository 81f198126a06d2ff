// What the tiles of thin and of wide units share.

#ifndef KCONV_ALGORITHMS_GROUPED_TILE_H_
#define KCONV_ALGORITHMS_GROUPED_TILE_H_

#include "algorithms/grouped/grouped.h"
#include "epilogue.h"
#include "simd.h"

// Sums must stay in registers from one step of a tile to the next.
#define KCONV_INLINE __attribute__((always_inline)) inline

namespace kconv::grouped {
namespace {

// Lets the compiler keep nothing that it loaded: loads as operands are free,
// where keeping them would push sums out of the registers.
KCONV_INLINE void LoadAgain() { asm volatile("" ::: "memory"); }

// The size, one of several, that covers `count` by tiles with the least work:
// each step of a tile has costs of its own as well.
template <int... kSizes>
struct Sizes {
  static int Best(int64_t count) {
    int best = 0;
    int64_t least = INT64_MAX;
    const int sizes[] = {kSizes...};
    for (int size : sizes) {
      const int64_t work = (count + size - 1) / size * (size + 1);
      if (work < least) {
        least = work;
        best = size;
      }
    }
    return best;
  }
};

// Calls tile(first, count) so that tiles of `size` cover [0, total): the last
// one begins earlier than it need, at `first`, where there is room. The results
// that it then repeats have the same bits.
template <typename Tile>
inline void Cover(int64_t total, int64_t size, const Tile& tile) {
  for (int64_t at = 0; at < total; at += size) {
    const int64_t first = Max(0, Min(at, total - size));
    tile(first, Min(size, total - first));
  }
}

// The results' memory is wanted when the sums are done, and would be waited for
// then.
template <int kColumns, int kBytes, typename T>
KCONV_INLINE void FetchResults(const ImageRow<T>& r, int64_t first,
                               int64_t lane) {
#pragma GCC unroll 16
  for (int c = 0; c < kColumns; ++c) {
    const char* to =
        reinterpret_cast<const char*>(r.to + (first + c) * r.to_column + lane);
#pragma GCC unroll 4
    for (int byte = 0; byte < kBytes; byte += 64) {
      __builtin_prefetch(to + byte, 1);
    }
  }
}

// Stores one vector of sums, finished.
template <typename S, typename T>
KCONV_INLINE void StoreSum(typename S::Vector sum, const ImageRow<T>& r,
                           int64_t column, int64_t lane) {
  if (r.bias != nullptr) {
    sum = Finish<S>(sum, S::Load(r.bias + lane), Bounds<T>(r.activation));
  }
  S::Store(r.to + column * r.to_column + lane, sum);
}

}  // namespace
}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_TILE_H_
