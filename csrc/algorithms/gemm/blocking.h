// How the matrix products are cut into tasks, and the scratch of one worker.
//
// Every constant is of the problem and the caches, none of the number of
// threads: the same blocks, and so the same bits, on 1 core and on 64.

#ifndef KCONV_ALGORITHMS_GEMM_BLOCKING_H_
#define KCONV_ALGORITHMS_GEMM_BLOCKING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "split.h"

namespace kconv::gemm {

// A block of A is kRows x kDepth<float>: 192 KiB, for half of the second-level
// cache; a panel of B takes 16 KiB (AVX2), half of the first.
inline constexpr int64_t kRows = 192;
inline constexpr int64_t kColumns = 512;
// Rows are cut at multiples of the tiles' 6 rows, or 4 of the baseline.
inline constexpr int64_t kRowUnit = 12;
inline constexpr int64_t kDepthBytes = 1024;
// Rows of a task that finds the filter packed: its block and its results share
// the second-level cache.
inline constexpr int64_t kPackedRows = 120;
static_assert(kPackedRows <= kRows && kRows % kRowUnit == 0);
inline constexpr int64_t kMaxPackedBytes = int64_t{64} << 20;
template <typename Sum>
inline constexpr int64_t kDepth = kDepthBytes / int64_t{sizeof(Sum)};

// Pixels that the filter gradient sums at a time. Its tiles read a cache line
// of the block for each; twice as many, and these fill the first level.
template <typename Sum>
inline constexpr int64_t kPixels = kDepth<Sum> / 2;

// Columns that are packed at a time, row by row of B: the widest panel there
// is, and a multiple of the others.
template <typename Sum>
inline constexpr int64_t kPanelColumns = 256 / int64_t{sizeof(Sum)};

// Row strides of a power of two would fall into few sets of the cache.
template <typename Sum>
inline constexpr int64_t kSkew = 64 / int64_t{sizeof(Sum)};

// Enough tasks for the cores of a large machine; few enough that each is long.
inline constexpr int64_t kWantedTasks = 32;
inline constexpr int64_t kMinColumns = 64;  // of a task made for parallelism
// Slices of the filter gradient's sum, with a partial result each.
inline constexpr int64_t kWantedSlices = 32;
inline constexpr int64_t kMinSlicePixels = 1024;

// For the scheduler only: how long a task takes, about.
inline constexpr double kMacsPerSecond = 4e10;

// The scratch of one worker, laid out in its slice of the workspace.
template <typename Sum>
struct Scratch {
  // kRows rows of A or, for the filter gradient, kPixels pixels of kRows
  // elements, which are fewer.
  static constexpr int64_t kBlockElements = kRows * (kDepth<Sum> + kSkew<Sum>);
  static_assert(kPixels<Sum> * (kRows + kSkew<Sum>) <= kBlockElements);

  Sum* block;          // kBlockElements
  Sum* panels;         // kDepth x kPanelColumns
  Sum* zeros;          // kDepth
  Sum* result;         // kRows x kColumns
  const Sum** a_rows;  // kRows
  Sum** c_rows;        // kRows

  static constexpr int64_t kBytes =
      (kBlockElements + kDepth<Sum> * (kPanelColumns<Sum> + 1) +
       kRows * kColumns) *
          int64_t{sizeof(Sum)} +
      2 * kRows * int64_t{sizeof(void*)};

  // Every part is a multiple of 64 bytes, and so begins on one.
  static_assert(kBytes % 64 == 0);

  Scratch(void* workspace, int worker) {
    char* at = static_cast<char*>(workspace) + worker * kBytes;
    auto take = [&at](int64_t bytes) {
      void* taken = at;
      at += bytes;
      return taken;
    };
    const int64_t element = sizeof(Sum);
    block = static_cast<Sum*>(take(kBlockElements * element));
    panels =
        static_cast<Sum*>(take(kDepth<Sum> * kPanelColumns<Sum> * element));
    zeros = static_cast<Sum*>(take(kDepth<Sum> * element));
    result = static_cast<Sum*>(take(kRows * kColumns * element));
    a_rows = static_cast<const Sum**>(take(kRows * sizeof(void*)));
    c_rows = static_cast<Sum**>(take(kRows * sizeof(void*)));
    std::fill(zeros, zeros + kDepth<Sum>, Sum(0));
  }
};

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_BLOCKING_H_
