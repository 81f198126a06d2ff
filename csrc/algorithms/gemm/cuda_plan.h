// What the blocks of the implicit products on the GPU take. By the problem
// only, so results never depend on the GPU.

#ifndef KCONV_ALGORITHMS_GEMM_CUDA_PLAN_H_
#define KCONV_ALGORITHMS_GEMM_CUDA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "conv.h"
#include "cuda/divisor.h"
#include "cuda/grid_axis.h"
#include "cuda/slices.h"
#include "cuda/words.h"
#include "split.h"

namespace kconv::gemm {

// A shape of tiles, and about which part of the peak its threads reach: more
// loads and stores for each product where it is narrow.
struct CudaTileShape {
  int rows, columns;
  double efficiency;
};
inline constexpr CudaTileShape kCudaImageTiles[] = {{128, 128, 1},
                                                    {128, 64, 0.95},
                                                    {256, 32, 0.8},
                                                    {256, 16, 0.6},
                                                    {256, 8, 0.35}};
inline constexpr CudaTileShape kCudaFilterTiles[] = {
    {128, 128, 1}, {128, 64, 0.95}, {128, 32, 0.7}, {64, 16, 0.4}};

// The shape that takes least time for `products` products of rows x columns.
template <int kCount>
int CudaShapeOf(const CudaTileShape (&shapes)[kCount], int64_t products,
                int64_t rows, int64_t columns, int64_t slices) {
  // Blocks that a large GPU runs at a time. With fewer, some of it waits.
  constexpr double kBusyBlocks = 264;
  int best = 0;
  double least = 0;
  for (int i = 0; i < kCount; ++i) {
    const CudaTileShape& s = shapes[i];
    const double tiles = static_cast<double>(CeilDivide(rows, s.rows)) *
                         static_cast<double>(CeilDivide(columns, s.columns)) *
                         static_cast<double>(products * slices);
    const double time =
        std::max(tiles, kBusyBlocks) * s.rows * s.columns / s.efficiency;
    if (i == 0 || time < least) {
      best = i;
      least = time;
    }
  }
  return best;
}

// An image in device memory, of the channels of all groups.
struct CudaImageOf {
  int64_t image;       // elements from one to the next
  int pixel, channel;  // the same
  int of_group;        // channels
};

inline CudaImageOf CudaImage(const ConvShape& s, bool input) {
  const bool last = s.layout == Layout::kChannelsLast;
  const int64_t channels = input ? s.in_channels : s.out_channels;
  const int64_t pixels = input ? s.InputPixels() : s.OutputPixels();
  CudaImageOf image;
  image.image = channels * pixels;
  image.pixel = static_cast<int>(last ? channels : 1);
  image.channel = static_cast<int>(last ? 1 : pixels);
  image.of_group = static_cast<int>(channels / s.groups);
  return image;
}

inline bool CudaHasQuads(const CudaImageOf& image) {
  return image.channel == 1 && image.of_group % 4 == 0;
}

// Places of an image by their number.
struct CudaGrid {
  int size[3] = {1, 1, 1};
  cuda::Divisor by[3];
  int places = 0;  // of all images

  CudaGrid() = default;
  CudaGrid(int64_t batch, int64_t d, int64_t h, int64_t w) {
    const int64_t sizes[] = {d, h, w};
    for (int i = 0; i < 3; ++i) {
      size[i] = static_cast<int>(sizes[i]);
      by[i] = cuda::Divisor(std::max<int64_t>(1, sizes[i]));
    }
    places = static_cast<int>(batch * d * h * w);
  }

  // Returns the image.
  KCONV_HOST_DEVICE int At(int number, int (&at)[3]) const {
    at[2] = by[2].Split(&number);
    at[1] = by[1].Split(&number);
    at[0] = by[0].Split(&number);
    return number;
  }
};

// Forward and input gradient: for each phase and group
//   written[place][n] = sum over taps and c of read[place, tap][c] *
//   filter[tap][c][n].
struct CudaImagePlan {
  cuda::Type type;
  cuda::GridAxis axis[3];
  CudaGrid grid;  // of a phase
  CudaImageOf read, written;
  int kernel_h = 1, kernel_w = 1;
  int filter_row = 1;  // elements of the filter from c to c + 1
  bool read_quads = false, filter_quads = false, written_quads = false;
  bool written_rows = false;  // four places, a multiple of 4, lie side by side

  int shape = 0;  // of kCudaImageTiles
  cuda::Divisor groups, column_tiles, row_tiles, phases_h, phases_w;
  int64_t blocks = 0;
};

// Of the best shape, or of one that tests ask for.
inline constexpr int kCudaBestShape = -1;

inline CudaImagePlan CudaImagePlanOf(const Problem& problem,
                                     int shape_of = kCudaBestShape) {
  const ConvShape& s = problem.shape;
  const bool gradient = problem.pass == Pass::kInputGradient;
  CudaImagePlan p;
  p.type = cuda::Type(problem.dtype);
  int64_t phases = 1, pitch = 1;
  for (int dim = 0; dim < kMaxSpatialDims; ++dim) {
    p.axis[dim] = cuda::GridAxis(s, problem.pass, dim);
    phases *= p.axis[dim].phases;
    pitch *= p.axis[dim].pitch;
  }
  p.grid = CudaGrid(s.batch, p.axis[0].grid, p.axis[1].grid, p.axis[2].grid);
  p.read = CudaImage(s, !gradient);
  p.written = CudaImage(s, gradient);
  p.kernel_h = static_cast<int>(s.kernel[1]);
  p.kernel_w = static_cast<int>(s.kernel[2]);
  p.filter_row = static_cast<int>(gradient ? s.in_channels : s.out_channels);
  p.read_quads = CudaHasQuads(p.read);
  p.written_quads = CudaHasQuads(p.written);
  p.filter_quads = p.written.of_group % 4 == 0;
  p.written_rows =
      p.written.pixel == 1 && pitch == 1 &&
      int64_t{p.grid.size[0]} * p.grid.size[1] * p.grid.size[2] % 4 == 0;
  p.shape = CudaShapeOf(kCudaImageTiles, s.groups * phases, p.grid.places,
                        p.written.of_group, 1);
  if (shape_of != kCudaBestShape) p.shape = shape_of;
  const CudaTileShape& shape = kCudaImageTiles[p.shape];
  const int64_t row_tiles = CeilDivide(p.grid.places, shape.rows);
  const int64_t column_tiles = CeilDivide(p.written.of_group, shape.columns);
  p.groups = cuda::Divisor(s.groups);
  p.column_tiles = cuda::Divisor(column_tiles);
  p.row_tiles = cuda::Divisor(std::max<int64_t>(1, row_tiles));
  p.phases_h = cuda::Divisor(std::max(1, p.axis[1].phases));
  p.phases_w = cuda::Divisor(std::max(1, p.axis[2].phases));
  p.blocks = phases * row_tiles * s.groups * column_tiles;
  return p;
}

// The filter gradient: for each group
//   filter[tap][c][n] = sum over places of input[place, tap][c] *
//   output[place][n].
struct CudaFilterPlan {
  cuda::Type type;
  cuda::GridAxis axis[3];
  CudaGrid grid;  // the output's
  CudaImageOf input, output;
  int rows = 0;  // taps and channels
  cuda::Divisor channels, kernel_h, kernel_w;
  int filter_row = 1;
  bool quads = false;

  int shape = 0;  // of kCudaFilterTiles
  cuda::Divisor groups, column_tiles, row_tiles;
  Split slices;  // of places
  int64_t blocks = 0;

  int64_t Slices() const { return std::max<int64_t>(1, slices.count); }
};

inline CudaFilterPlan CudaFilterPlanOf(const Problem& problem,
                                       int shape_of = kCudaBestShape) {
  constexpr int64_t kWantedBlocks = 1056;
  constexpr int64_t kLeastPlaces = 256;  // of a slice
  const ConvShape& s = problem.shape;
  CudaFilterPlan p;
  p.type = cuda::Type(problem.dtype);
  for (int dim = 0; dim < kMaxSpatialDims; ++dim) {
    p.axis[dim] = cuda::GridAxis(s, problem.pass, dim);
  }
  p.grid = CudaGrid(s.batch, s.output[0], s.output[1], s.output[2]);
  p.input = CudaImage(s, true);
  p.output = CudaImage(s, false);
  p.rows = static_cast<int>(s.KernelTaps() * s.GroupInChannels());
  p.channels = cuda::Divisor(s.GroupInChannels());
  p.kernel_h = cuda::Divisor(s.kernel[1]);
  p.kernel_w = cuda::Divisor(s.kernel[2]);
  p.filter_row = static_cast<int>(s.out_channels);
  p.quads = CudaHasQuads(p.input) && CudaHasQuads(p.output);
  const int64_t parts = CeilDivide(p.grid.places, kLeastPlaces);
  p.shape = CudaShapeOf(kCudaFilterTiles, s.groups, p.rows, p.output.of_group,
                        std::max<int64_t>(1, parts));
  if (shape_of != kCudaBestShape) p.shape = shape_of;
  const CudaTileShape& shape = kCudaFilterTiles[p.shape];
  const int64_t row_tiles = CeilDivide(p.rows, shape.rows);
  const int64_t column_tiles = CeilDivide(p.output.of_group, shape.columns);
  const int64_t tiles = row_tiles * column_tiles * s.groups;
  p.groups = cuda::Divisor(s.groups);
  p.column_tiles = cuda::Divisor(column_tiles);
  p.row_tiles = cuda::Divisor(row_tiles);
  p.slices = Split(
      p.grid.places,
      cuda::SliceCount(parts, tiles, kWantedBlocks, s.FilterElements() * 4),
      kLeastPlaces);
  p.blocks = tiles * p.Slices();
  return p;
}

// Null, or a sentence.
inline const char* CudaRefusal(const Problem& problem) {
  if (problem.dtype == DType::kFloat64) {
    return "gemm has no float64 kernel for GPUs.";
  }
  if (const char* sizes = cuda::SizesRefusal(problem.shape)) return sizes;
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  const int64_t blocks = problem.pass == Pass::kFilterGradient
                             ? CudaFilterPlanOf(problem).blocks
                             : CudaImagePlanOf(problem).blocks;
  return blocks > kMostBlocks ? "gemm takes 2147483647 tiles only on GPUs."
                              : nullptr;
}

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_CUDA_PLAN_H_
