// What the three passes share: how the work is cut, and scratch memory.
//
// Every constant is of the problem and the caches, none of the number of
// threads: the same blocks, and so the same bits, on 1 core and on 64.

#ifndef KCONV_DEFORMABLE_PASSES_H_
#define KCONV_DEFORMABLE_PASSES_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "deformable/arena.h"
#include "deformable/deformable.h"
#include "deformable/kernels.h"
#include "deformable/window.h"
#include "gemm/gemm.h"
#include "gemm/panels.h"
#include "half.h"
#include "split.h"

namespace kconv::deformable {

// Columns that are gathered at a time. A panel of the filter as deep takes half
// of the first-level cache (AVX2), as many for some pixels a part of the
// second.
template <typename Sum>
inline constexpr int64_t kDepth = 1024 / int64_t{sizeof(Sum)};

// Row strides of a power of two would fall into few sets of the cache.
template <typename Sum>
inline constexpr int64_t kSkew = 64 / int64_t{sizeof(Sum)};

// Output pixels of a block: at most, and where these are too few for the cores
// of a large machine. Multiples of the tiles' 6 rows, or 4 of the baseline.
inline constexpr int64_t kMostPixels = 96;
inline constexpr int64_t kFewPixels = 48;
inline constexpr int64_t kPixelUnit = 12;
inline constexpr int64_t kWantedTasks = 32;

// Samples that a block has at most, but for the least of blocks.
inline constexpr int64_t kMostSamples = 32768;
inline constexpr int64_t kLeastPixels = 6;

// For the scheduler only: how fast a task is, about.
inline constexpr double kMacsPerSecond = 2e10;

// Blocks of `pixels`, of which each has `points` samples.
inline Split PixelBlocks(int64_t pixels, int64_t points) {
  const bool few = pixels < kWantedTasks * kMostPixels;
  const int64_t size = std::clamp(kMostSamples / points, kLeastPixels,
                                  few ? kFewPixels : kMostPixels);
  const int64_t unit = size < kPixelUnit ? kLeastPixels : kPixelUnit;
  return Split(pixels, CeilDivide(pixels, size / unit * unit), unit);
}

template <typename Element>
const Kernel<Element>& KernelFor(Isa isa);

// The offset groups that channels [first, first + count) belong to, and taps.
inline Points PointsOf(const DeformShape& shape, int64_t first, int64_t count,
                       int64_t first_tap, int64_t taps) {
  Points points = {};
  points.first_group = first / shape.OffsetGroupChannels();
  points.groups = (first + count - 1) / shape.OffsetGroupChannels() -
                  points.first_group + 1;
  points.first_tap = first_tap;
  points.taps = taps;
  return points;
}

// Workspace of a pass, and the pass itself.
template <typename Element>
int64_t ForwardWorkspace(const DeformProblem& problem, Isa isa, int threads);
template <typename Element>
void RunForward(const DeformProblem& problem, const DeformArgs& args,
                Context* ctx);

template <typename Element>
int64_t ImageGradientWorkspace(const DeformProblem& problem, Isa isa,
                               int threads);
template <typename Element>
void RunImageGradient(const DeformProblem& problem, const DeformArgs& args,
                      Context* ctx);

template <typename Element>
int64_t FilterGradientWorkspace(const DeformProblem& problem, Isa isa,
                                int threads);
template <typename Element>
void RunFilterGradient(const DeformProblem& problem, const DeformArgs& args,
                       Context* ctx);

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_PASSES_H_
