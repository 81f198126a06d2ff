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
#include "cuda/phases.h"
#include "cuda/slices.h"
#include "cuda/words.h"
#include "split.h"

namespace kconv::grouped {

inline constexpr int kCudaThreads = 256;  // most of a block
inline constexpr int kCudaChannels = 32;  // most of a group; about of a block

// A tile of written places, and how many of them there are. Numbers of rows and
// columns are powers of two.
struct CudaTiling {
  int images = 1, rows = 0, columns = 0;
  int row_bits = 0, column_bits = 0;
  cuda::Divisor tiles_y, tiles_x;
  int64_t tiles_of_batch = 0;

  struct Place {
    int image, y, x;
  };
  // The first place of a tile by its number.
  KCONV_HOST_DEVICE Place CornerOf(int number) const {
    Place corner;
    corner.x = tiles_x.Split(&number) * columns;
    corner.y = tiles_y.Split(&number) * rows;
    corner.image = number * images;
    return corner;
  }
  // A place in a tile by its number.
  KCONV_HOST_DEVICE Place PlaceOf(int number) const {
    return {number >> (row_bits + column_bits),
            number >> column_bits & (rows - 1), number & (columns - 1)};
  }
  int64_t Tiles() const {
    return tiles_of_batch * tiles_y.divisor * tiles_x.divisor;
  }
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

// Cuts images into tiles of `places`, a power of two: the fewest, of those the
// ones that read least. Small images share one. A tile reads at most `most`
// pixels, `more` columns of them beyond its last tap; returns false where none
// does.
inline bool CutTiles(int64_t batch, const cuda::GridAxis& y,
                     const cuda::GridAxis& x, int places, int64_t more,
                     int64_t most, CudaTiling* tiling) {
  const int grid_y = std::max(1, y.grid), grid_x = std::max(1, x.grid);
  int64_t least_reads = 0;
  for (int column_bits = 2; 1 << column_bits <= places; ++column_bits) {
    const int columns = 1 << column_bits;
    for (int images = 1; images * columns <= places; images *= 2) {
      const int rows = places / columns / images;
      if (images > 1 && (rows < grid_y || columns < grid_x)) break;
      CudaTiling t;
      t.images = images;
      t.rows = rows;
      t.columns = columns;
      t.column_bits = column_bits;
      while (1 << t.row_bits < rows) ++t.row_bits;
      t.tiles_y = cuda::Divisor(CeilDivide(grid_y, rows));
      t.tiles_x = cuda::Divisor(CeilDivide(grid_x, columns));
      t.tiles_of_batch = CeilDivide(batch, images);
      const int64_t reads_y = ReadsOf(y, rows);
      const int64_t reads_x = ReadsOf(x, columns) + more;
      if (reads_y > most || images * reads_y * reads_x > most) continue;
      const int64_t reads = images * reads_y * reads_x;
      if (tiling->rows == 0 || t.Tiles() < tiling->Tiles() ||
          (t.Tiles() == tiling->Tiles() && reads < least_reads)) {
        least_reads = reads;
        *tiling = t;
      }
    }
  }
  return tiling->rows > 0;
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
    return taps * ((read.of_group + 3) / 4 * 4) * blocks_n * channels;
  }
  int64_t WeightBytes() const {
    return 4 * int64_t{of_block} * Weights(MostTaps(y) * MostTaps(x));
  }
  int64_t SharedBytes() const { return box.Bytes() + WeightBytes(); }
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
      // No more of a tile than there is.
      const int places = p.Places() * p.warps;
      if (p.warps > 1 && s.batch * p.y.grid * p.x.grid <= places / 2) {
        continue;
      }
      const int64_t plane = CeilDivide(p.read.of_group, 4) * p.of_block * 16;
      const int64_t left = cuda::kMostSharedBytes - p.WeightBytes();
      p.tiling = CudaTiling();
      if (!CutTiles(s.batch, p.y, p.x, places, 0, left / plane - 1,
                    &p.tiling)) {
        continue;
      }
      p.box = CudaBox(p.tiling.images,
                      static_cast<int>(ReadsOf(p.y, p.tiling.rows)),
                      static_cast<int>(ReadsOf(p.x, p.tiling.columns)),
                      p.read.of_group, p.of_block);
      p.fits = p.SharedBytes() <= cuda::kMostSharedBytes;
      if (p.fits) break;
    }
    if (p.fits) break;
  }
  if (!p.fits) return p;
  const int64_t chunks = CeilDivide(s.groups, p.of_block);
  p.chunks = cuda::Divisor(chunks);
  p.phases_y = cuda::Divisor(std::max(1, p.y.phases));
  p.phases_x = cuda::Divisor(std::max(1, p.x.phases));
  p.blocks = p.tiling.Tiles() * p.y.phases * p.x.phases * chunks;
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
      const int64_t more = p.x.step * (taps_x * p.taps - p.x.kernel);
      const int64_t left =
          cuda::kMostSharedBytes - fours_out * p.of_block * 16 * (places + 1);
      p.tiling = CudaTiling();
      if (!CutTiles(s.batch, p.y, p.x, places, more,
                    left / (fours_in * p.of_block * 16) - 1, &p.tiling)) {
        continue;
      }
      p.parts = std::min(kCudaThreads / p.units_of_block, places / 4);
      p.box = CudaBox(p.tiling.images,
                      static_cast<int>(ReadsOf(p.y, p.tiling.rows)),
                      // The last taps are summed with some that are not there.
                      static_cast<int>(ReadsOf(p.x, p.tiling.columns) + more),
                      p.input.of_group, p.of_block);
      p.gradient = CudaBox(p.tiling.images, p.tiling.rows, p.tiling.columns,
                           p.output.of_group, p.of_block);
      p.fits = p.SharedBytes() <= cuda::kMostSharedBytes;
      if (p.fits) break;
    }
    if (p.fits) break;
  }
  if (!p.fits) return p;
  const int64_t chunks = CeilDivide(s.groups, p.of_block);
  const int64_t unit_chunks = CeilDivide(p.units, p.units_of_block);
  p.chunks = cuda::Divisor(chunks);
  p.unit_chunks = cuda::Divisor(unit_chunks);
  const int64_t tiles = s.OutputPixels() == 0 ? 0 : p.tiling.Tiles();
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
  if (cuda::HasDepth(s)) {
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
