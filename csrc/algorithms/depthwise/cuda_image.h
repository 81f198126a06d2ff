// Forward and input gradient of depthwise on the GPU.
//
// A block takes a tile of what is written, for some channels: it loads what the
// tile reads, and the weights, into shared memory; computes kCudaRows x
// kCudaColumns outputs a thread in registers; and stores them by way of shared
// memory, so that device memory is read and written in long runs whichever
// layout it has.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_CUDA_IMAGE_H_
#define KCONV_ALGORITHMS_DEPTHWISE_CUDA_IMAGE_H_

#include <cstdint>

#include "algorithms/depthwise/cuda_boxes.h"
#include "algorithms/depthwise/cuda_plan.h"

namespace kconv::depthwise {

// kTaps of a row at a time, strides along rows of kStride, and kPitch elements
// from column to column in shared memory.
template <int kTaps, int kStride, int kPitch>
struct CudaImageKernel {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  CudaImagePlan plan;
  CudaWalk read_walk, written_walk;
  bool flip;  // taps, for the input gradient
  const void* read;
  const void* filter;
  const void* bias;  // or null
  Activation activation;
  void* written;

  cuda::Launch Launch() const {
    return {plan.blocks, plan.threads, plan.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 3; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    const CudaTiles& t = plan.tiles;
    const CudaTile tile =
        TileOf(t, thread.block / t.chunks, thread.block % t.chunks);
    float* box = static_cast<float*>(shared);
    float* sums = box + plan.WrittenAt();
    float* weights = box + plan.WeightsAt();
    if (step == 0) {
      WithCudaElement(t, [&](auto element, auto pack) {
        using Element = decltype(element);
        LoadBoxAs<Element, sizeof(pack)>(
            static_cast<const Element*>(read), t.read, tile,
            tile.y * t.stride_y - t.pad_y, tile.x * t.stride_x - t.pad_x,
            plan.read, t.last, read_walk, thread, box);
        LoadWeights(static_cast<const Element*>(filter), tile, thread, weights);
      });
    } else if (step == 1) {
      Compute(tile, thread, box, weights, sums);
    } else {
      WithCudaElement(t, [&](auto element, auto pack) {
        using Element = decltype(element);
        StoreBoxAs<Element, sizeof(pack)>(
            sums, plan.written, t.last, written_walk,
            static_cast<const Element*>(bias), activation, t.written, tile,
            thread, static_cast<Element*>(written));
      });
    }
  }

 private:
  // weights[tap][channel], zeros for channels that are not there.
  template <typename Element>
  KCONV_HOST_DEVICE void LoadWeights(const Element* from, const CudaTile& tile,
                                     const cuda::Thread& thread,
                                     float* to) const {
    const CudaTiles& t = plan.tiles;
    const int taps = t.kernel_y * t.kernel_x;
    for (int i = thread.index; i < taps * t.chunk; i += thread.count) {
      const int tap = i / t.chunk, channel = i % t.chunk;
      const int source = flip ? taps - 1 - tap : tap;
      to[i] = channel < tile.channels
                  ? Widen(from[source * t.channels + tile.channel + channel])
                  : 0.0f;
    }
  }

  KCONV_HOST_DEVICE void Compute(const CudaTile& tile,
                                 const cuda::Thread& thread, const float* box,
                                 const float* weights, float* to) const {
    const CudaTiles& t = plan.tiles;
    const int groups_x = t.tile_columns / kCudaColumns;
    const int groups_y = t.tile_rows / kCudaRows;
    int rest = thread.index, channel, group_x;
    if (kPitch > 1) {  // neighbours are channels, or else columns
      channel = rest % kPitch;
      rest /= kPitch;
    }
    group_x = rest % groups_x;
    rest /= groups_x;
    const int group_y = rest % groups_y;
    if (kPitch == 1) channel = rest / groups_y;

    const int x = group_x * kCudaColumns, y = group_y * kCudaRows;
    const float* first = box + channel * plan.read.channel +
                         y * t.stride_y * plan.read.row + x * kStride * kPitch;
    weights += channel;
    to += channel * plan.written.channel + y * plan.written.row + x * kPitch;
    float sum[kCudaRows][kCudaColumns] = {};
    // Of the written rows that there are.
    const int left = t.written.height - tile.y - y;
    const int count = left < kCudaRows ? left : kCudaRows;
    const int rows = count > 0 ? (count - 1) * t.stride_y + t.kernel_y : 0;
    // Every other row may be zeros between pixels, for a whole block the same.
    const int zeros = (t.pad_y - (tile.y + y) * t.stride_y) & t.read.zeros_y;
    for (int row = zeros; row < rows; row += 1 + t.read.zeros_y) {
      const float* from = first + row * plan.read.row;
      int tap = 0;
      for (; tap + kTaps <= t.kernel_x; tap += kTaps) {
        AddTaps<false>(from, weights, row, tap, sum);
      }
      if (tap < t.kernel_x) {
        AddTaps<true>(from, weights, row, tap, sum);
      }
    }
    bool is_nan = false;
    KCONV_UNROLL
    for (int i = 0; i < kCudaRows; ++i) {
      KCONV_UNROLL
      for (int j = 0; j < kCudaColumns; ++j) {
        is_nan = is_nan || sum[i][j] != sum[i][j];
        to[i * plan.written.row + j * kPitch] = sum[i][j];
      }
    }
    if (!is_nan) return;
    // Rare and slow. A zero of the box that stands for no pixel makes NaN of a
    // weight that is not finite.
    KCONV_NO_UNROLL
    for (int n = 0; n < kCudaRows * kCudaColumns; ++n) {
      const int i = n / kCudaColumns, j = n % kCudaColumns;
      to[i * plan.written.row + j * kPitch] = SumOfPixels(
          first + i * t.stride_y * plan.read.row + j * kStride * kPitch,
          (tile.y + y + i) * t.stride_y - t.pad_y,
          (tile.x + x + j) * kStride - t.pad_x, weights);
    }
  }

  // The sum of a window that begins at (y, x) of what is read, over those of
  // its places that hold a pixel.
  KCONV_HOST_DEVICE float SumOfPixels(const float* box, int y, int x,
                                      const float* weights) const {
    const CudaTiles& t = plan.tiles;
    float sum = 0;
    for (int v = 0; v < t.kernel_y; ++v) {
      if (!IsPixel(y + v, t.read.zeros_y, t.read.height)) continue;
      for (int u = 0; u < t.kernel_x; ++u) {
        if (!IsPixel(x + u, t.read.zeros_x, t.read.width)) continue;
        sum += weights[(v * t.kernel_x + u) * t.chunk] *
               box[v * plan.read.row + u * kPitch];
      }
    }
    return sum;
  }

  // Adds taps [tap, tap + kTaps) of each row of the kernel that meets this row
  // of the box; kGuarded where fewer of them are left.
  template <bool kGuarded>
  KCONV_HOST_DEVICE void AddTaps(const float* from, const float* weights,
                                 int row, int tap,
                                 float (&sum)[kCudaRows][kCudaColumns]) const {
    constexpr int kReads = (kCudaColumns - 1) * kStride + kTaps;
    const CudaTiles& t = plan.tiles;
    float x[kReads];
    KCONV_UNROLL
    for (int i = 0; i < kReads; ++i) x[i] = from[(tap + i) * kPitch];
    KCONV_UNROLL
    for (int i = 0; i < kCudaRows; ++i) {
      const int tap_y = row - i * t.stride_y;
      if (tap_y < 0 || tap_y >= t.kernel_y) continue;
      const float* w = weights + (tap_y * t.kernel_x + tap) * t.chunk;
      KCONV_UNROLL
      for (int u = 0; u < kTaps; ++u) {
        if (kGuarded && tap + u >= t.kernel_x) break;
        const float weight = w[u * t.chunk];
        KCONV_UNROLL
        for (int j = 0; j < kCudaColumns; ++j) {
          sum[i][j] += weight * x[j * kStride + u];
        }
      }
    }
  }
};

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_CUDA_IMAGE_H_
