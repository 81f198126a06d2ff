// What the Winograd kernels of the GPU know of a problem. By the problem only,
// so results never depend on the GPU.

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_PLAN_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "conv.h"
#include "cuda/gemm.h"
#include "cuda/grid_axis.h"
#include "cuda/host_device.h"
#include "cuda/slices.h"
#include "split.h"

namespace kconv::winograd {

inline constexpr int kCudaTaps = 3;  // an axis

// An image in device memory.
struct CudaImage {
  // Elements from one to the next. Within a tile bytes fit in 32 bits, so that
  // a GPU finds elements faster.
  int64_t image, channel;
  int row, pixel;
  int height, width;
  bool last;  // channels
};

// Tiles of kOutputs x kOutputs results, along rows, then columns, then images.
struct CudaTiling {
  int64_t count = 0;
  int rows = 0, columns = 0;  // of an image

  struct Place {
    int64_t image;
    int row, column;
  };
  KCONV_HOST_DEVICE Place At(int64_t tile) const {
    // Division of 64 bits takes a GPU very long.
    return count <= INT32_MAX ? PlaceOf(static_cast<uint32_t>(tile))
                              : PlaceOf(static_cast<uint64_t>(tile));
  }

 private:
  template <typename Number>
  KCONV_HOST_DEVICE Place PlaceOf(Number tile) const {
    const Number wide = static_cast<Number>(columns);
    const Number high = static_cast<Number>(rows);
    const Number line = tile / wide;
    return {static_cast<int64_t>(line / high), static_cast<int>(line % high),
            static_cast<int>(tile % wide)};
  }
};

// An image that is read, one that is written (in the filter gradient: also
// read), and the tiles of the latter. Channels are those of a group.
struct CudaPass {
  bool last;      // channels
  bool gradient;  // of the input: the filter is turned
  int64_t groups, channels, results;
  CudaImage read, written;
  int pad_y, pad_x;  // of what is read
  CudaTiling tiling;
};

inline CudaImage CudaImageOf(const ConvShape& s, bool input) {
  const bool last = s.layout == Layout::kChannelsLast;
  const int64_t* size = input ? s.input : s.output;
  const int64_t channels = input ? s.in_channels : s.out_channels;
  const int64_t pixels = size[1] * size[2];
  CudaImage image;
  image.last = last;
  image.image = channels * pixels;
  image.pixel = last ? static_cast<int>(channels) : 1;
  image.row = static_cast<int>(size[2]) * image.pixel;
  image.channel = last ? 1 : pixels;
  image.height = static_cast<int>(size[1]);
  image.width = static_cast<int>(size[2]);
  return image;
}

inline CudaPass CudaPassOf(int outputs, const Problem& problem) {
  const ConvShape& s = problem.shape;
  CudaPass pass;
  pass.last = s.layout == Layout::kChannelsLast;
  pass.gradient = problem.pass == Pass::kInputGradient;
  pass.groups = s.groups;
  pass.channels = s.GroupInChannels();
  pass.results = s.GroupOutChannels();
  pass.read = CudaImageOf(s, !pass.gradient);
  pass.written = CudaImageOf(s, pass.gradient);
  pass.pad_y = static_cast<int>(s.pad_before[1]);
  pass.pad_x = static_cast<int>(s.pad_before[2]);
  if (pass.gradient) {
    // dx[q] = sum over u of dy[q - (k - 1 - p) + u] w[k - 1 - u].
    std::swap(pass.channels, pass.results);
    pass.pad_y = kCudaTaps - 1 - pass.pad_y;
    pass.pad_x = kCudaTaps - 1 - pass.pad_x;
  }
  CudaTiling& t = pass.tiling;
  t.rows = static_cast<int>(CeilDivide(pass.written.height, outputs));
  t.columns = static_cast<int>(CeilDivide(pass.written.width, outputs));
  t.count = s.batch * t.rows * t.columns;
  return pass;
}

// Frequencies in device memory: [plane][group][rows][columns], rows of whole
// fours.
struct CudaPlanes {
  int64_t row = 0, group = 0, plane = 0;  // floats from one to the next
  int64_t rows = 0, size = 0;

  static CudaPlanes Of(int64_t planes, int64_t groups, int64_t rows,
                       int64_t columns) {
    CudaPlanes p;
    p.rows = rows;
    p.row = RoundUp(columns, 4);
    p.group = rows * p.row;
    p.plane = groups * p.group;
    p.size = planes * p.plane;
    return p;
  }
  KCONV_HOST_DEVICE int64_t Columns() const { return row; }
  KCONV_HOST_DEVICE int64_t At(int64_t g, int64_t r, int64_t column) const {
    return g * group + r * row + column;
  }
};

// U of the fused kernel, in the order in which it is read: [group][block of
// results][step][plane][kDepth channels][width results], with zeros that fill
// the last of them.
struct CudaFusedPlanes {
  static constexpr int kPlanes = 16, kDepth = 8;

  int width = 0;
  int64_t plane = 0;  // floats from one to the next
  int64_t rows = 0, steps = 0, blocks = 0, size = 0;

  static CudaFusedPlanes Of(const CudaPass& pass, int width) {
    CudaFusedPlanes p;
    p.width = width;
    p.plane = kDepth * width;
    p.steps = CeilDivide(pass.channels, kDepth);
    p.rows = p.steps * kDepth;
    p.blocks = CeilDivide(pass.results, width);
    p.size = pass.groups * p.blocks * p.steps * kPlanes * p.plane;
    return p;
  }
  KCONV_HOST_DEVICE int64_t Columns() const { return blocks * width; }
  KCONV_HOST_DEVICE int64_t Block(int64_t number) const {
    return number * steps * kPlanes * plane;
  }
  KCONV_HOST_DEVICE int64_t At(int64_t group, int64_t r, int64_t column) const {
    return Block(group * blocks + column / width) +
           r / kDepth * kPlanes * plane + r % kDepth * width + column % width;
  }
};

// Whether blocks take 64 tiles and 32 results rather than the reverse: they
// transform each tile more often, so it must save a quarter of the products.
inline bool CudaNarrow(const CudaPass& pass) {
  return 4 * RoundUp(pass.results, 32) <= 3 * RoundUp(pass.results, 64);
}

inline CudaFusedPlanes CudaFusedFilter(const CudaPass& pass) {
  return CudaFusedPlanes::Of(pass, CudaNarrow(pass) ? 32 : 64);
}

// Passes that go by way of V, U and M in device memory, some tiles at a time.
struct CudaSlices {
  int64_t planes;
  Split tiles;         // slices of them
  CudaPlanes v, u, m;  // of one slice; m: also the gradient of the output
  // The filter gradient: its products, and how many sums of parts of a slice
  // there are.
  CudaPlanes products;
  Split parts;

  int64_t Parts() const { return std::max<int64_t>(1, parts.count); }
  int64_t Bytes() const {
    return 4 * (v.size + u.size + m.size + Parts() * products.size);
  }
};

// As long as a slice stays in the second-level cache of a large GPU, transforms
// run at its speed ...
inline constexpr int64_t kCudaCachedBytes = int64_t{32} << 20;
// ... but there should be enough blocks, ...
inline constexpr int64_t kCudaWantedTiles = 1024;
// ... and there is a bound.
inline constexpr int64_t kCudaSliceBytes = int64_t{256} << 20;
inline constexpr int64_t kCudaTileUnit = 128;  // rows of a block of the product

inline int64_t CudaTileBytes(int outputs, const CudaPass& pass) {
  const int64_t points = outputs + kCudaTaps - 1;
  return 4 * points * points * pass.groups *
         (RoundUp(pass.channels, 4) + RoundUp(pass.results, 4));
}

inline CudaSlices CudaSlicesOf(int outputs, const Problem& problem,
                               const CudaPass& pass) {
  constexpr int64_t kWantedBlocks = 1024;
  constexpr int64_t kPartTiles = 128;
  const int64_t points = outputs + kCudaTaps - 1;
  const int64_t of_tile = CudaTileBytes(outputs, pass);
  const int64_t most =
      std::min(std::max(kCudaCachedBytes / of_tile, kCudaWantedTiles),
               kCudaSliceBytes / of_tile);
  const int64_t size =
      std::max(most / kCudaTileUnit * kCudaTileUnit, kCudaTileUnit);
  CudaSlices s;
  s.planes = points * points;
  s.tiles = Split(pass.tiling.count, CeilDivide(pass.tiling.count, size),
                  kCudaTileUnit);
  const int64_t tiles = std::min(s.tiles.size, pass.tiling.count);
  const auto planes = [&](int64_t rows, int64_t columns) {
    return CudaPlanes::Of(s.planes, pass.groups, rows, columns);
  };
  if (problem.pass == Pass::kFilterGradient) {
    s.v = planes(tiles, pass.channels);
    s.m = planes(tiles, pass.results);
    s.products = planes(pass.channels, pass.results);
    s.parts = Split(
        tiles,
        cuda::SliceCount(CeilDivide(tiles, kPartTiles),
                         s.planes * pass.groups *
                             cuda::GemmBlocks(pass.channels, pass.results),
                         kWantedBlocks, s.products.size * 4),
        16);
  } else {
    s.v = planes(pass.channels, tiles);
    s.u = planes(pass.channels, pass.results);
    s.m = pass.last ? planes(tiles, pass.results) : planes(pass.results, tiles);
  }
  return s;
}

// Null, or a sentence.
template <int kOutputs>
const char* CudaRefusal(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (kOutputs == 2 && problem.dtype == DType::kFloat64) {
    return "winograd:f2 has no float64 kernel for GPUs.";
  }
  if (kOutputs != 2 && problem.dtype != DType::kFloat32) {
    return "winograd:f4 takes float32 only on GPUs.";
  }
  if (cuda::HasDepth(s)) {
    return "winograd takes two dimensions only on GPUs.";
  }
  // More, and bytes of a workspace would not fit in 64 bits, or places in a
  // tile in 32.
  constexpr int64_t kMostChannels = int64_t{1} << 20;
  constexpr int64_t kMostSize = int64_t{1} << 26;
  for (int dim = 1; dim < kMaxSpatialDims; ++dim) {
    if (s.kernel[dim] != kCudaTaps) {
      return "winograd takes kernels of 3 x 3 only on GPUs.";
    }
    if (s.stride[dim] != 1 || s.dilation[dim] != 1) {
      return "winograd takes neither strides nor dilation on GPUs.";
    }
    if (std::max({s.input[dim], s.output[dim], s.pad_before[dim],
                  s.pad_after[dim]}) > kMostSize) {
      return "winograd takes sizes up to 67108864 only on GPUs.";
    }
  }
  if (s.groups > 1 &&
      std::min(s.GroupInChannels(), s.GroupOutChannels()) < 32) {
    return "winograd takes groups of 32 channels and more only on GPUs.";
  }
  const int64_t channels = std::max(s.in_channels, s.out_channels);
  if (channels > kMostChannels) {
    return "winograd takes at most 1048576 channels on GPUs.";
  }
  if (s.layout == Layout::kChannelsLast &&
      std::max(s.input[2], s.output[2]) * channels > kMostSize) {
    return "winograd takes rows of at most 67108864 elements on GPUs.";
  }
  if ((kOutputs != 2 || problem.pass == Pass::kFilterGradient) &&
      CudaTileBytes(kOutputs, CudaPassOf(kOutputs, problem)) * kCudaTileUnit >
          kCudaSliceBytes) {
    return "winograd would take more than 256 MiB of workspace on GPUs for so "
           "many channels.";
  }
  return nullptr;
}

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_PLAN_H_
