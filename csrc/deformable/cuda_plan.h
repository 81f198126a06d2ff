// How the work of a GPU is cut. By the problem only, never by the GPU, so that
// every GPU adds in the same order.

#ifndef KCONV_DEFORMABLE_CUDA_PLAN_H_
#define KCONV_DEFORMABLE_CUDA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "cuda/slices.h"
#include "deformable/cuda_tile.h"
#include "deformable/deformable.h"
#include "split.h"

namespace kconv::deformable {

// Two for each multiprocessor of a large GPU.
inline constexpr int64_t kCudaWantedBlocks = 264;

// Of the gradients by values that exist at a time: as much as stays in the
// second-level cache, mostly.
inline constexpr int64_t kCudaValueBytes = int64_t{64} << 20;

// Of a product whose columns are the filters of a group, in the smallest tiles:
// its blocks are numbered in 32 bits.
inline int64_t MostTiles(int64_t rows, const ConvShape& s) {
  return CeilDivide(rows, kLeastTileSide) *
         CeilDivide(s.GroupOutChannels(), kLeastTileSide) * s.groups;
}

inline const char* CudaRefusal(const DeformProblem& problem) {
  const DeformShape& shape = problem.shape;
  const ConvShape& s = shape.conv;
  constexpr int64_t kMost = int64_t{1} << 30;
  const int64_t height = s.input[1], width = s.input[2];
  // Factors first: a product of two small ones does not overflow.
  const bool small =
      height < kMost && width < kMost && (height + 1) * width < kMost &&
      s.in_channels < kMost && s.out_channels < kMost &&
      shape.offset_groups * ((height + 1) * width + 1) < kMost &&
      s.KernelTaps() < kMost && s.KernelTaps() * s.GroupInChannels() < kMost &&
      shape.Pixels() < kMost && shape.Points() < kMost &&
      shape.Pixels() * shape.Points() < kMost &&
      MostTiles(shape.Pixels(), s) < kMost &&
      MostTiles(s.KernelTaps() * s.GroupInChannels(), s) < kMost;
  return small ? nullptr
               : "deformable convolution on GPUs takes sizes below 2^30: of "
                 "the samples in all, of the pixels of an image times the "
                 "offset groups, of the kernel's taps times channels, and of "
                 "the tiles of 32 x 32 results.";
}

// A product in tiles, of as many groups.
template <typename Sum>
struct CudaTiling {
  CudaTile<Sum> tile;
  int64_t row_tiles, column_tiles, blocks;

  CudaTiling(int64_t rows, int64_t columns, int64_t groups, int64_t wanted)
      : tile(TileFor<Sum>(rows, columns, groups, wanted)),
        row_tiles(CeilDivide(rows, tile.Rows())),
        column_tiles(CeilDivide(columns, tile.Columns())),
        blocks(row_tiles * column_tiles * groups) {}
};

// Pixels x filters. The columns of the sampled matrix are cut into slices where
// tiles are few.
template <typename Sum>
struct CudaForwardPlan {
  // How much fewer tiles than blocks do: a smaller tile samples each value more
  // often.
  static constexpr int64_t kFewTiles = 4;

  CudaTiling<Sum> tiling;
  Split slices;

  explicit CudaForwardPlan(const DeformShape& shape)
      : tiling(shape.Pixels(), shape.conv.GroupOutChannels(), shape.conv.groups,
               kCudaWantedBlocks / kFewTiles) {
    constexpr int64_t kLeastColumns = 256;
    const int64_t columns =
        shape.conv.KernelTaps() * shape.conv.GroupInChannels();
    slices =
        Split(columns,
              std::min(kCudaWantedBlocks / std::max<int64_t>(1, tiling.blocks),
                       columns / kLeastColumns),
              kCudaDepth);
  }
};

// Columns of the sampled matrix x filters. The pixels are cut into slices.
template <typename Sum>
struct CudaFilterPlan {
  CudaTiling<Sum> tiling;
  Split slices;

  explicit CudaFilterPlan(const DeformShape& shape)
      : tiling(shape.conv.KernelTaps() * shape.conv.GroupInChannels(),
               shape.conv.GroupOutChannels(), shape.conv.groups, 1) {
    constexpr int64_t kLeastPixels = 64;
    const int64_t bytes =
        shape.conv.FilterElements() * static_cast<int64_t>(sizeof(Sum));
    slices =
        Split(shape.Pixels(),
              cuda::SliceCount(shape.Pixels() / kLeastPixels, tiling.blocks,
                               2 * kCudaWantedBlocks, bytes),
              kCudaDepth);
  }
};

// The gradients by values in pieces: some images, all or some of the groups, or
// a part of a group's channels.
struct CudaValueSlices {
  int64_t images = 1;  // of a piece
  int64_t group_channels;
  Split groups, parts;

  CudaValueSlices(const DeformShape& shape, int64_t bytes_of_sum)
      : group_channels(shape.conv.GroupInChannels()) {
    constexpr int64_t kLeastChannels = 16;
    const ConvShape& s = shape.conv;
    const int64_t bytes =
        std::max<int64_t>(1, s.OutputPixels() * s.KernelTaps() * bytes_of_sum);
    const int64_t channels = std::max(kLeastChannels, kCudaValueBytes / bytes);
    // Their pixels are numbered in 32 bits.
    const int64_t most_images =
        std::min(std::max<int64_t>(1, s.batch),
                 (int64_t{1} << 30) / std::max<int64_t>(1, s.InputPixels()));
    images = std::clamp<int64_t>(channels / s.in_channels, 1,
                                 std::max<int64_t>(1, most_images));
    groups = Split(s.groups, CeilDivide(s.in_channels, channels), 1);
    parts = Split(group_channels, 1, 1);
    if (group_channels > channels) {
      groups = Split(s.groups, s.groups, 1);
      parts = Split(group_channels, CeilDivide(group_channels, channels), 4);
    }
  }

  int64_t Count() const { return groups.count * parts.count; }
  int64_t FirstGroup(int64_t slice) const {
    return groups.Begin(slice / parts.count);
  }
  int64_t Groups(int64_t slice) const {
    return groups.Size(slice / parts.count);
  }
  // Of each of its groups: the first channel, and how many.
  int64_t Skipped(int64_t slice) const {
    return parts.Begin(slice % parts.count);
  }
  int64_t GroupChannels(int64_t slice) const {
    return parts.Size(slice % parts.count);
  }
  int64_t MostChannels() const { return groups.size * parts.size; }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_PLAN_H_
