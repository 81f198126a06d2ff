// Tiles of the depthwise kernels of the GPU: what a block takes, and where it
// keeps that in shared memory. By the problem only, so results never depend on
// the GPU.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_CUDA_PLAN_H_
#define KCONV_ALGORITHMS_DEPTHWISE_CUDA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "conv.h"
#include "cuda/grid_axis.h"
#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "cuda/slices.h"
#include "split.h"

namespace kconv::depthwise {

inline constexpr int kCudaThreads = 256;  // most of a block
inline constexpr int kCudaColumns = 7;    // outputs of a thread, side by side
inline constexpr int kCudaRows = 2;       // and rows of them

// Division of small numbers by a multiplication: exact while the product of
// number and divisor is below 2^32.
struct CudaDivisor {
  uint32_t divisor = 1;
  uint64_t factor = uint64_t{1} << 32;

  CudaDivisor() = default;
  explicit CudaDivisor(int by)
      : divisor(static_cast<uint32_t>(by)),
        factor((uint64_t{1} << 32) / divisor + 1) {}
  KCONV_HOST_DEVICE int Divide(int number) const {
    return static_cast<int>(static_cast<uint32_t>(number) * factor >> 32);
  }
};

// A box of an image in shared memory: channels, rows and columns.
struct CudaBox {
  int channels = 0, rows = 0, columns = 0;
  // Elements from one to the next. Channels first has an odd number of columns
  // and of elements in a channel, so that threads side by side meet different
  // banks.
  int column = 0, row = 0, channel = 0;

  int size = 0;

  static CudaBox Of(bool last, int channels, int rows, int columns) {
    CudaBox b;
    b.channels = channels;
    b.rows = rows;
    b.columns = columns;
    if (last) {
      // Odd, for kernels whose threads lie side by side along rows of taps.
      b.column = channels;
      b.row = channels * (columns | 1);
      b.channel = 1;
      b.size = b.row * rows;
    } else {
      b.column = 1;
      b.row = columns | 1;
      b.channel = (b.row * rows) | 1;
      b.size = b.channel * channels;
    }
    return b;
  }
};

// An image in device memory.
struct CudaImage {
  int64_t image, pixel, channel;  // elements from one to the next
  int height, width;
  // Between two pixels of a box, none or one: the gradient of a stride.
  int zeros_y = 0, zeros_x = 0;
};

// What both kernels know of a problem. Rows and columns are the two last
// dimensions.
struct CudaTiles {
  bool last = true;  // channels
  DType dtype = DType::kFloat32;
  int vector = 1;  // elements loaded at a time
  int64_t batch = 0, channels = 0;
  int chunk = 0;  // channels of a block
  int tile_rows = 0, tile_columns = 0;
  int64_t chunks = 0, tiles_y = 0, tiles_x = 0;
  int kernel_y = 1, kernel_x = 1;
  int stride_y = 1, stride_x = 1;
  int taps = 3;  // of a row that are computed at a time
  CudaImage read, written;
  // Where the box of tile 0 begins in what is read: -pad_y, -pad_x.
  int pad_y = 0, pad_x = 0;

  int64_t Tiles() const { return batch * tiles_y * tiles_x; }
};

inline CudaImage ImageOf(const Problem& problem, bool input) {
  const ConvShape& s = problem.shape;
  const bool last = s.layout == Layout::kChannelsLast;
  const int64_t* size = input ? s.input : s.output;
  const int64_t pixels = size[1] * size[2];
  CudaImage image;
  image.image = s.in_channels * pixels;
  image.pixel = last ? s.in_channels : 1;
  image.channel = last ? 1 : pixels;
  image.height = static_cast<int>(size[1]);
  image.width = static_cast<int>(size[2]);
  return image;
}

inline int CudaTaps(int64_t kernel_x) {
  return kernel_x <= 3 ? 3 : kernel_x <= 5 ? 5 : 7;
}

// Null, or a sentence.
inline const char* CudaRefusal(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.dtype == DType::kFloat64) {
    return "depthwise has no float64 kernel for GPUs.";
  }
  if (s.GroupInChannels() != 1 || s.GroupOutChannels() != 1) {
    return "depthwise takes one filter a channel only on GPUs.";
  }
  if (cuda::HasDepth(s)) {
    return "depthwise takes one or two dimensions only on GPUs.";
  }
  constexpr int64_t kMostSize = int64_t{1} << 28;
  for (int dim = 1; dim < kMaxSpatialDims; ++dim) {
    if (s.kernel[dim] > 31) return "depthwise takes 31 taps only on GPUs.";
    if (s.kernel[dim] > 1 && s.dilation[dim] != 1) {
      return "depthwise takes no dilation on GPUs.";
    }
    if (s.stride[dim] > 2) return "depthwise takes strides of 1 and 2 on GPUs.";
    if (std::max({s.input[dim], s.output[dim], s.pad_before[dim],
                  s.pad_after[dim]}) > kMostSize) {
      return "depthwise takes sizes below 268435457 only on GPUs.";
    }
  }
  return nullptr;
}

// Tiles of a problem that is not refused; chunk and tile sizes are left.
inline CudaTiles TilesOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  CudaTiles t;
  t.last = s.layout == Layout::kChannelsLast;
  t.dtype = problem.dtype;
  t.batch = s.batch;
  t.channels = s.in_channels;
  t.kernel_y = static_cast<int>(s.kernel[1]);
  t.kernel_x = static_cast<int>(s.kernel[2]);
  t.taps = CudaTaps(s.kernel[2]);
  const bool gradient = problem.pass == Pass::kInputGradient;
  t.read = ImageOf(problem, !gradient);
  t.written = ImageOf(problem, gradient);
  const int stride_y = static_cast<int>(s.stride[1]);
  const int stride_x = static_cast<int>(s.stride[2]);
  const int pad_y = static_cast<int>(s.pad_before[1]);
  const int pad_x = static_cast<int>(s.pad_before[2]);
  if (gradient) {
    // dx[i] = sum over u of dy'[i + p - (k - 1) + u] w[k - 1 - u], where dy'
    // is dy with stride - 1 zeros between its pixels.
    t.read.zeros_y = stride_y - 1;
    t.read.zeros_x = stride_x - 1;
    t.pad_y = t.kernel_y - 1 - pad_y;
    t.pad_x = t.kernel_x - 1 - pad_x;
  } else {
    t.stride_y = stride_y;
    t.stride_x = stride_x;
    t.pad_y = pad_y;
    t.pad_x = pad_x;
  }
  const int64_t lanes = SizeOf(problem.dtype) == 2 ? 8 : 4;
  t.vector = t.last && t.channels % lanes == 0 ? static_cast<int>(lanes) : 1;
  return t;
}

inline void CutTiles(CudaTiles* t, int chunk, int rows, int columns) {
  t->chunk = chunk;
  t->tile_rows = rows;
  t->tile_columns = columns;
  t->chunks = CeilDivide(t->channels, chunk);
  t->tiles_y = CeilDivide(t->written.height, rows);
  t->tiles_x = CeilDivide(t->written.width, columns);
}

// Whether chunks of 32 channels leave much of themselves unused, and so those
// of 8 are better: of 8 or 40 channels.
inline bool HasFewChannels(const CudaTiles& t) {
  return 4 * RoundUp(t.channels, 32) > 5 * RoundUp(t.channels, 8);
}

struct CudaCandidate {
  int chunk, rows, columns;
};

// Forward and input gradient.
struct CudaImagePlan {
  CudaTiles tiles;
  CudaBox read, written;  // behind one another in shared memory, then weights
  int threads = 0;
  int64_t blocks = 0;

  KCONV_HOST_DEVICE int WrittenAt() const { return (read.size + 3) / 4 * 4; }
  KCONV_HOST_DEVICE int WeightsAt() const {
    return WrittenAt() + (written.size + 3) / 4 * 4;
  }
  int64_t SharedBytes() const {
    return 4 * (WeightsAt() +
                int64_t{tiles.kernel_y} * tiles.kernel_x * tiles.chunk);
  }
};

inline CudaImagePlan ImagePlanOf(const Problem& problem) {
  // The largest that fits. Threads side by side take neighbouring channels, or
  // places along a row where those lie side by side.
  using Candidates = CudaCandidate[4];
  static constexpr Candidates kSmallKernels = {
      {32, 8, 14}, {8, 16, 28}, {8, 8, 14}, {8, 2, 7}};
  static constexpr Candidates kOthers = {
      {8, 16, 28}, {8, 16, 14}, {8, 8, 14}, {8, 2, 7}};
  static constexpr Candidates kWideImages = {
      {1, 32, 56}, {1, 16, 28}, {1, 14, 14}, {1, 2, 7}};
  static constexpr Candidates kImages = {
      {2, 28, 28}, {1, 16, 28}, {1, 14, 14}, {1, 2, 7}};
  static constexpr Candidates kSmallImages = {
      {8, 14, 14}, {2, 14, 14}, {1, 14, 14}, {1, 2, 7}};
  // Of one dimension. Threads have two rows, but pass over the second.
  static constexpr Candidates kRows = {
      {32, 2, 56}, {8, 2, 224}, {8, 2, 56}, {8, 2, 7}};
  static constexpr Candidates kRowsOfFew = {
      {8, 2, 224}, {8, 2, 112}, {8, 2, 56}, {8, 2, 7}};
  static constexpr Candidates kLongRows = {
      {1, 2, 896}, {1, 2, 448}, {1, 2, 56}, {1, 2, 7}};
  static constexpr Candidates kShortRows = {
      {16, 2, 56}, {4, 2, 56}, {1, 2, 56}, {1, 2, 7}};
  CudaImagePlan plan;
  plan.tiles = TilesOf(problem);
  CudaTiles& t = plan.tiles;
  const bool small = std::max(t.kernel_y, t.kernel_x) <= 7;
  const bool few = HasFewChannels(t);
  const int width = t.written.width;
  const Candidates& candidates =
      t.written.height == 1 ? (t.last        ? (few ? kRowsOfFew : kRows)
                               : width > 224 ? kLongRows
                                             : kShortRows)
      : t.last              ? (small && !few ? kSmallKernels : kOthers)
      : width > 28          ? kWideImages
      : width > 14          ? kImages
                            : kSmallImages;
  for (int i = 0; i < 4; ++i) {
    const CudaCandidate& c = candidates[i];
    CutTiles(&t, c.chunk, c.rows, c.columns);
    plan.read = CudaBox::Of(
        t.last, c.chunk, (c.rows - 1) * t.stride_y + t.kernel_y,
        // The last taps are computed together with some that are not there.
        (c.columns - 1) * t.stride_x +
            static_cast<int>(RoundUp(t.kernel_x, t.taps)));
    plan.written = CudaBox::Of(t.last, c.chunk, c.rows, c.columns);
    if (plan.SharedBytes() <= cuda::kMostSharedBytes) break;
  }
  plan.threads =
      t.chunk * (t.tile_rows / kCudaRows) * (t.tile_columns / kCudaColumns);
  plan.blocks = t.Tiles() * t.chunks;
  return plan;
}

// The filter gradient.
struct CudaFilterPlan {
  CudaTiles tiles;  // of the output; `written` is its gradient, also read
  CudaBox read, gradient;  // behind one another
  int taps_y = 0;          // rows of taps of a block
  int chunks_y = 0;        // of them
  int taps_x = 0;          // groups of `tiles.taps` taps in a row
  // Of a tile, summed by threads of their own: so many, of its rows and of runs
  // of kCudaColumns in these.
  int parts = 0, parts_y = 0, parts_x = 0;
  int threads = 0;
  Split slices;  // of tiles

  KCONV_HOST_DEVICE int GradientAt() const { return (read.size + 3) / 4 * 4; }
  // The sums of the parts lie where the boxes were.
  int64_t SharedBytes() const {
    return 4 * std::max<int64_t>(GradientAt() + gradient.size,
                                 int64_t{threads} * tiles.taps);
  }
  int64_t Blocks() const {
    return tiles.chunks * chunks_y * std::max<int64_t>(1, slices.count);
  }
};

inline CudaFilterPlan FilterPlanOf(const Problem& problem) {
  constexpr int64_t kWantedBlocks = 1024;
  // The largest that fits, as of the other passes.
  using Candidates = CudaCandidate[4];
  static constexpr Candidates kSmallKernels = {
      {32, 8, 14}, {32, 4, 14}, {8, 8, 14}, {8, 2, 7}};
  static constexpr Candidates kOthers = {
      {8, 8, 28}, {8, 8, 14}, {8, 4, 14}, {8, 2, 7}};
  static constexpr Candidates kRows = {
      {32, 1, 112}, {32, 1, 56}, {8, 1, 56}, {8, 1, 7}};
  static constexpr Candidates kRowsOfFew = {
      {8, 1, 224}, {8, 1, 112}, {8, 1, 56}, {8, 1, 7}};
  CudaFilterPlan plan;
  plan.tiles = TilesOf(problem);
  CudaTiles& t = plan.tiles;
  const bool small = std::max(t.kernel_y, t.kernel_x) <= 7;
  const bool wide = t.last && small && !HasFewChannels(t);
  const Candidates& candidates = t.written.height == 1
                                     ? (wide ? kRows : kRowsOfFew)
                                     : (wide ? kSmallKernels : kOthers);
  plan.taps_y = small ? t.kernel_y : std::min(t.kernel_y, 4);
  plan.chunks_y = static_cast<int>(CeilDivide(t.kernel_y, plan.taps_y));
  plan.taps_x = static_cast<int>(CeilDivide(t.kernel_x, t.taps));
  for (int i = 0; i < 4; ++i) {
    const CudaCandidate& c = candidates[i];
    CutTiles(&t, c.chunk, c.rows, c.columns);
    const int of_part = t.chunk * plan.taps_y * plan.taps_x;
    const int most = std::max(1, kCudaThreads / of_part);
    plan.parts_y = std::min(most, t.tile_rows);
    plan.parts_x = std::min(most / plan.parts_y, t.tile_columns / kCudaColumns);
    plan.parts = plan.parts_y * plan.parts_x;
    plan.threads = of_part * plan.parts;
    plan.read = CudaBox::Of(
        t.last, t.chunk, (t.tile_rows - 1) * t.stride_y + plan.taps_y,
        (t.tile_columns - 1) * t.stride_x + plan.taps_x * t.taps);
    plan.gradient = CudaBox::Of(t.last, t.chunk, t.tile_rows, t.tile_columns);
    if (plan.SharedBytes() <= cuda::kMostSharedBytes) break;
  }
  plan.slices =
      Split(t.Tiles(),
            cuda::SliceCount(t.Tiles(), t.chunks * plan.chunks_y, kWantedBlocks,
                             problem.shape.FilterElements() * 4),
            1);
  return plan;
}

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_CUDA_PLAN_H_
