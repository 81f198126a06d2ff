// The filter gradient of depthwise on the GPU, in two stages and without
// atomics.
//
// A block takes some channels, some rows of taps and a slice of the tiles. For
// each tile it loads the gradient and the pixels that the taps meet; a thread
// holds kTaps sums of one row of taps, over some rows of the tile, from tile to
// tile. At the end the sums of the same taps are added in shared memory, and
// written beside those of the other slices, for cuda/slices.h to add.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_CUDA_FILTER_H_
#define KCONV_ALGORITHMS_DEPTHWISE_CUDA_FILTER_H_

#include <cstdint>

#include "algorithms/depthwise/cuda_boxes.h"
#include "algorithms/depthwise/cuda_plan.h"

namespace kconv::depthwise {

template <int kTaps, int kStride, int kPitch>
struct CudaFilterKernel {
  struct State {
    float sum[kTaps];
  };
  static constexpr int kMostThreads = kCudaThreads;

  CudaFilterPlan plan;
  CudaWalk read_walk, gradient_walk;
  int64_t slices, tiles, slice_tiles;
  const void* read;
  const void* gradient;
  float* partials;  // [slice][tap][channel]

  cuda::Launch Launch() const {
    return {plan.Blocks(), plan.threads, plan.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t block) const {
    return 2 * TilesOfSlice(SliceOf(block)) + 2;
  }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State* state) const {
    const CudaTiles& t = plan.tiles;
    const int64_t slice = SliceOf(thread.block);
    const int64_t chunk = thread.block % t.chunks;
    const int first_y =
        static_cast<int>(thread.block / t.chunks % plan.chunks_y) * plan.taps_y;
    float* box = static_cast<float*>(shared);
    float* gradients = box + plan.GradientAt();
    const Place place = PlaceOf(thread.index);
    const int64_t count = TilesOfSlice(slice);
    if (step < 2 * count) {
      const CudaTile tile = TileOf(t, slice * slice_tiles + step / 2, chunk);
      if (step % 2 == 0) {
        Load(tile, first_y, thread, box, gradients);
      } else {
        Sum(tile, place, box, gradients, state);
      }
    } else if (step == 2 * count) {
      KCONV_UNROLL
      for (int u = 0; u < kTaps; ++u) {
        box[u * thread.count + thread.index] = state->sum[u];
      }
    } else if (place.part_y == 0 && place.part_x == 0) {
      Write(ChannelsOf(t, chunk), first_y, place, slice, thread, box);
    }
  }

 private:
  // What a thread sums: a channel of the chunk, a row of the block's taps, a
  // group of kTaps in it, and of each tile the rows part_y, part_y + parts_y,
  // ..., and in these as many runs of kCudaColumns.
  struct Place {
    int channel, tap_y, group_x, part_y, part_x;
  };
  KCONV_HOST_DEVICE Place PlaceOf(int index) const {
    Place p;
    p.channel = index % plan.tiles.chunk;
    index /= plan.tiles.chunk;
    p.tap_y = index % plan.taps_y;
    index /= plan.taps_y;
    p.group_x = index % plan.taps_x;
    index /= plan.taps_x;
    p.part_y = index % plan.parts_y;
    p.part_x = index / plan.parts_y;
    return p;
  }

  KCONV_HOST_DEVICE int64_t SliceOf(int64_t block) const {
    return block / plan.tiles.chunks / plan.chunks_y;
  }
  KCONV_HOST_DEVICE int64_t TilesOfSlice(int64_t slice) const {
    const int64_t rest = tiles - slice * slice_tiles;
    return rest < slice_tiles ? rest : slice_tiles;
  }

  KCONV_HOST_DEVICE void Load(const CudaTile& tile, int first_y,
                              const cuda::Thread& thread, float* box,
                              float* gradients) const {
    const CudaTiles& t = plan.tiles;
    WithCudaElement(t, [&](auto element, auto pack) {
      using Element = decltype(element);
      LoadBoxAs<Element, sizeof(pack)>(static_cast<const Element*>(read),
                                       t.read, tile,
                                       tile.y * t.stride_y - t.pad_y + first_y,
                                       tile.x * t.stride_x - t.pad_x, plan.read,
                                       t.last, read_walk, thread, box);
      LoadBoxAs<Element, sizeof(pack)>(
          static_cast<const Element*>(gradient), t.written, tile, tile.y,
          tile.x, plan.gradient, t.last, gradient_walk, thread, gradients);
    });
  }

  // Of the outputs that there are: a zero in place of one would make a NaN of
  // an infinite pixel that no tap of the group meets.
  KCONV_HOST_DEVICE void Sum(const CudaTile& tile, const Place& place,
                             const float* box, const float* gradients,
                             State* state) const {
    const CudaTiles& t = plan.tiles;
    const int rows_left = t.written.height - tile.y;
    const int columns_left = t.written.width - tile.x;
    const int rows = rows_left < t.tile_rows ? rows_left : t.tile_rows;
    const int columns =
        columns_left < t.tile_columns ? columns_left : t.tile_columns;
    box += place.channel * plan.read.channel + place.tap_y * plan.read.row +
           place.group_x * kTaps * kPitch;
    gradients += place.channel * plan.gradient.channel;
    const int first = place.part_x * kCudaColumns;
    const int apart = plan.parts_x * kCudaColumns;
    for (int row = place.part_y; row < rows; row += plan.parts_y) {
      const float* x = box + row * t.stride_y * plan.read.row;
      const float* g = gradients + row * plan.gradient.row;
      int column = first;
      for (; column + kCudaColumns <= columns; column += apart) {
        AddColumns<false>(x, g, column, columns, state);
      }
      if (column < columns) AddColumns<true>(x, g, column, columns, state);
    }
  }

  // Adds kCudaColumns outputs; kGuarded where fewer of them are left.
  template <bool kGuarded>
  KCONV_HOST_DEVICE void AddColumns(const float* box, const float* gradients,
                                    int column, int columns,
                                    State* state) const {
    constexpr int kReads = (kCudaColumns - 1) * kStride + kTaps;
    float x[kReads];
    KCONV_UNROLL
    for (int i = 0; i < kReads; ++i) {
      x[i] = box[(column * kStride + i) * kPitch];
    }
    KCONV_UNROLL
    for (int j = 0; j < kCudaColumns; ++j) {
      if (kGuarded && column + j >= columns) break;
      const float g = gradients[(column + j) * kPitch];
      KCONV_UNROLL
      for (int u = 0; u < kTaps; ++u) {
        state->sum[u] += g * x[j * kStride + u];
      }
    }
  }

  // Adds the parts, always in the same order.
  KCONV_HOST_DEVICE void Write(const CudaTile& tile, int first_y,
                               const Place& place, int64_t slice,
                               const cuda::Thread& thread,
                               const float* sums) const {
    const CudaTiles& t = plan.tiles;
    const int tap_y = first_y + place.tap_y;
    if (place.channel >= tile.channels || tap_y >= t.kernel_y) return;
    const int of_part = thread.count / plan.parts;
    KCONV_UNROLL
    for (int u = 0; u < kTaps; ++u) {
      const int tap_x = place.group_x * kTaps + u;
      if (tap_x >= t.kernel_x) break;
      float sum = 0;
      for (int part = 0; part < plan.parts; ++part) {
        sum += sums[u * thread.count + part * of_part + thread.index];
      }
      const int64_t tap =
          int64_t{slice} * t.kernel_y * t.kernel_x + tap_y * t.kernel_x + tap_x;
      partials[tap * t.channels + tile.channel + place.channel] = sum;
    }
  }
};

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_CUDA_FILTER_H_
