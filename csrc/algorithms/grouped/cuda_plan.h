// What the blocks of the grouped kernels of the GPU take. By the problem only,
// so results never depend on the GPU.

#ifndef KCONV_ALGORITHMS_GROUPED_CUDA_PLAN_H_
#define KCONV_ALGORITHMS_GROUPED_CUDA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "algorithms/grouped/cuda_box.h"
#include "conv.h"
#include "cuda/divisor.h"
#include "cuda/grid_axis.h"
#include "cuda/slices.h"
#include "cuda/words.h"
#include "split.h"

namespace kconv::grouped {

// Shared memory of a block that every GPU from compute capability 8.0 gives.
inline constexpr int64_t kCudaSharedBytes = 99 << 10;
inline constexpr int kCudaThreads = 256;  // most of a block
inline constexpr int kCudaChannels = 32;  // most of a group; about of a block

// A tile of written places, and how many blocks of them an image has.
struct CudaTiling {
  int rows = 0, columns = 0;  // columns: a power of two
  int column_bits = 0;
  cuda::Divisor tiles_y, tiles_x;
};

// The largest number of taps of a place.
inline int MostTaps(const cuda::GridAxis& axis) {
  return axis.tap_step > 0
             ? axis.kernel
             : static_cast<int>(CeilDivide(axis.kernel, -axis.tap_step));
}
// Read places between the ends of what `count` written ones meet.
inline int64_t ReadsOf(const cuda::GridAxis& axis, int count) {
  return int64_t{axis.stride} * (count - 1) +
         int64_t{axis.step} * (MostTaps(axis) - 1) + 1;
}

// Cuts a grid into tiles of `places`, the fewest, of those the ones that read
// least. Returns false where their boxes are too large.
inline bool CutTiles(const cuda::GridAxis& y, const cuda::GridAxis& x,
                     int places, CudaTiling* tiling) {
  int64_t least_tiles = 0, least_reads = 0;
  for (int bits = 3; 1 << bits <= places; ++bits) {
    const int columns = 1 << bits, rows = places >> bits;
    const int64_t tiles = CeilDivide(std::max(1, y.grid), rows) *
                          CeilDivide(std::max(1, x.grid), columns);
    const int64_t reads = ReadsOf(y, rows) * ReadsOf(x, columns);
    if (reads > (1 << 20)) continue;
    if (tiling->rows == 0 || tiles < least_tiles ||
        (tiles == least_tiles && reads < least_reads)) {
      least_tiles = tiles;
      least_reads = reads;
      tiling->rows = rows;
      tiling->columns = columns;
      tiling->column_bits = bits;
    }
  }
  if (tiling->rows == 0) return false;
  tiling->tiles_y =
      cuda::Divisor(CeilDivide(std::max(1, y.grid), tiling->rows));
  tiling->tiles_x =
      cuda::Divisor(CeilDivide(std::max(1, x.grid), tiling->columns));
  return true;
}

// Forward and input gradient.
struct CudaImagePlan {
  cuda::Type type;
  cuda::GridAxis y, x;
  CudaImage read, written;
  bool flip = false;  // input gradient: the filter's channels change places
  int filter_row = 1, kernel_x = 1, filter_channels = 1;
  int groups = 1;  // of the problem

  int channels = 8;  // that a thread sums: 4 or 8
  int of_block = 1;  // groups
  int blocks_n = 1;  // fours or eights of channels of a group
  int warps = 1;     // side by side over a tile
  CudaTiling tiling;
  CudaBox box;
  cuda::Divisor chunks, phases_y, phases_x;
  int64_t blocks = 0;
  bool fits = false;

  KCONV_HOST_DEVICE int Places() const { return kSums / channels * 32; }
  int Threads() const { return 32 * warps * of_block * blocks_n; }
  // Of a group: [tap][channel][written channel].
  KCONV_HOST_DEVICE int Weights(int taps) const {
    return taps * box.fours * 4 * blocks_n * channels;
  }
  int64_t SharedBytes() const {
    return box.Bytes() +
           4 * int64_t{of_block} * Weights(MostTaps(y) * MostTaps(x));
  }
  static constexpr int kSums = 32;  // of a thread
};

inline CudaImagePlan CudaImagePlanOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  CudaImagePlan p;
  p.type = cuda::Type(problem.dtype);
  p.y = cuda::GridAxis(s, problem.pass, 1);
  p.x = cuda::GridAxis(s, problem.pass, 2);
  p.flip = problem.pass == Pass::kInputGradient;
  p.read = CudaImage(s, !p.flip);
  p.written = CudaImage(s, p.flip);
  p.filter_row = static_cast<int>(s.out_channels);
  p.filter_channels = static_cast<int>(s.GroupInChannels());
  p.kernel_x = static_cast<int>(s.kernel[2]);
  p.groups = static_cast<int>(s.groups);
  p.channels = p.written.of_group <= 4 ? 4 : 8;
  p.blocks_n = static_cast<int>(CeilDivide(p.written.of_group, p.channels));
  constexpr int kWarps = kCudaThreads / 32;
  const int most_groups = static_cast<int>(std::min<int64_t>(
      s.groups,
      std::min(std::max(1, kCudaChannels /
                               std::max(p.read.of_group, p.written.of_group)),
               kWarps / p.blocks_n)));
  // Taps whose weights could not fit.
  const bool many = int64_t{MostTaps(p.y)} * MostTaps(p.x) > (1 << 14);
  for (p.of_block = most_groups; p.of_block > 0 && !many; p.of_block /= 2) {
    for (p.warps = kWarps / (p.of_block * p.blocks_n); p.warps > 0;
         p.warps /= 2) {
      // No more of a tile than an image has.
      const int places = p.Places() * p.warps;
      if (p.warps > 1 && int64_t{p.y.grid} * p.x.grid <= places / 2) {
        continue;
      }
      p.tiling = CudaTiling();
      if (!CutTiles(p.y, p.x, places, &p.tiling)) continue;
      p.box = CudaBox(static_cast<int>(ReadsOf(p.y, p.tiling.rows)),
                      static_cast<int>(ReadsOf(p.x, p.tiling.columns)),
                      p.read.of_group, p.of_block);
      p.fits = p.SharedBytes() <= kCudaSharedBytes;
      if (p.fits) break;
    }
    if (p.fits) break;
  }
  if (!p.fits) return p;
  const int64_t chunks = CeilDivide(s.groups, p.of_block);
  p.chunks = cuda::Divisor(chunks);
  p.phases_y = cuda::Divisor(std::max(1, p.y.phases));
  p.phases_x = cuda::Divisor(std::max(1, p.x.phases));
  p.blocks = s.batch * p.y.phases * p.x.phases * p.tiling.tiles_y.divisor *
             p.tiling.tiles_x.divisor * chunks;
  if (p.y.written == 0 || p.x.written == 0) p.blocks = 0;
  return p;
}

// The filter gradient.
struct CudaFilterPlan {
  cuda::Type type;
  cuda::GridAxis y, x;
  CudaImage input, output;
  int groups = 1, filter_row = 1;

  int taps = 3;      // of a row of the kernel that a thread sums
  int of_block = 1;  // groups
  // Units of a block's groups: a row of taps, some of its taps, four channels
  // of the input, and four of the output. So many that threads sum them.
  int units = 0, units_of_block = 0;
  cuda::Divisor fours_out, fours_in, taps_x, kernel_y;
  int parts = 1;  // of a tile's places, summed by threads of their own
  CudaTiling tiling;
  CudaBox box, gradient;
  cuda::Divisor chunks, unit_chunks;
  Split slices;  // of tiles of all images
  int64_t blocks = 0;
  bool fits = false;

  int64_t Slices() const { return std::max<int64_t>(1, slices.count); }
  int Threads() const { return parts * units_of_block; }
  KCONV_HOST_DEVICE int Sums() const { return 16 * taps + 1; }
  // The sums lie where the boxes were.
  int64_t SharedBytes() const {
    return std::max(box.Bytes() + gradient.Bytes(),
                    int64_t{4} * Threads() * Sums());
  }
};

inline CudaFilterPlan CudaFilterPlanOf(const Problem& problem) {
  constexpr int64_t kWantedBlocks = 1056;
  const ConvShape& s = problem.shape;
  CudaFilterPlan p;
  p.type = cuda::Type(problem.dtype);
  p.y = cuda::GridAxis(s, problem.pass, 1);
  p.x = cuda::GridAxis(s, problem.pass, 2);
  p.input = CudaImage(s, true);
  p.output = CudaImage(s, false);
  p.groups = static_cast<int>(s.groups);
  p.filter_row = static_cast<int>(s.out_channels);
  p.taps = p.x.kernel == 1 ? 1 : 3;
  const int64_t fours_in = CeilDivide(s.GroupInChannels(), 4);
  const int64_t fours_out = CeilDivide(s.GroupOutChannels(), 4);
  const int64_t taps_x = CeilDivide(p.x.kernel, p.taps);
  const int64_t of_group = fours_in * fours_out * taps_x * p.y.kernel;
  p.fours_in = cuda::Divisor(fours_in);
  p.fours_out = cuda::Divisor(fours_out);
  p.taps_x = cuda::Divisor(taps_x);
  p.kernel_y = cuda::Divisor(p.y.kernel);
  const int most_groups = static_cast<int>(std::min<int64_t>(
      s.groups, std::max(1, kCudaChannels / std::max(p.input.of_group,
                                                     p.output.of_group))));
  const bool many = of_group > (1 << 20);
  for (p.of_block = most_groups; p.of_block > 0 && !many; p.of_block /= 2) {
    p.units = static_cast<int>(of_group) * p.of_block;
    p.units_of_block = std::min(p.units, kCudaThreads);
    for (int places : {128, 64, 32}) {
      p.tiling = CudaTiling();
      if (!CutTiles(p.y, p.x, places, &p.tiling)) continue;
      p.parts = std::min(kCudaThreads / p.units_of_block, places / 4);
      p.box =
          CudaBox(static_cast<int>(ReadsOf(p.y, p.tiling.rows)),
                  // The last taps are summed with some that are not there.
                  static_cast<int>(ReadsOf(p.x, p.tiling.columns) +
                                   p.x.step * (taps_x * p.taps - p.x.kernel)),
                  p.input.of_group, p.of_block);
      p.gradient = CudaBox(p.tiling.rows, p.tiling.columns, p.output.of_group,
                           p.of_block);
      p.fits = p.SharedBytes() <= kCudaSharedBytes;
      if (p.fits) break;
    }
    if (p.fits) break;
  }
  if (!p.fits) return p;
  const int64_t chunks = CeilDivide(s.groups, p.of_block);
  const int64_t unit_chunks = CeilDivide(p.units, p.units_of_block);
  p.chunks = cuda::Divisor(chunks);
  p.unit_chunks = cuda::Divisor(unit_chunks);
  const int64_t tiles =
      s.OutputPixels() == 0
          ? 0
          : s.batch * p.tiling.tiles_y.divisor * p.tiling.tiles_x.divisor;
  p.slices = Split(tiles,
                   cuda::SliceCount(tiles, chunks * unit_chunks, kWantedBlocks,
                                    s.FilterElements() * 4),
                   1);
  p.blocks = chunks * unit_chunks * p.Slices();
  return p;
}

// Null, or a sentence.
inline const char* CudaRefusal(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.dtype == DType::kFloat64) {
    return "grouped has no float64 kernel for GPUs.";
  }
  if (s.groups < 2) return "grouped takes two groups and more only on GPUs.";
  if (std::max(s.GroupInChannels(), s.GroupOutChannels()) > kCudaChannels ||
      s.GroupInChannels() * s.GroupOutChannels() < 2) {
    return "grouped takes 2 to 32 channels a group only on GPUs.";
  }
  if (s.input[0] != 1 || s.kernel[0] != 1 || s.output[0] != 1 ||
      s.pad_before[0] != 0) {
    return "grouped takes one or two dimensions only on GPUs.";
  }
  if (const char* sizes = cuda::SizesRefusal(s)) return sizes;
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  bool fits;
  int64_t blocks;
  if (problem.pass == Pass::kFilterGradient) {
    const CudaFilterPlan plan = CudaFilterPlanOf(problem);
    fits = plan.fits;
    blocks = std::max(plan.blocks, plan.slices.total);
  } else {
    const CudaImagePlan plan = CudaImagePlanOf(problem);
    fits = plan.fits;
    blocks = plan.blocks;
  }
  if (!fits) {
    return "grouped holds a tile and its weights in the shared memory of a "
           "GPU, which these do not fit.";
  }
  return blocks > kMostBlocks ? "grouped takes 2147483647 tiles only on GPUs."
                              : nullptr;
}

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_CUDA_PLAN_H_
