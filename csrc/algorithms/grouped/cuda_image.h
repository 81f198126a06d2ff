// Forward and input gradient of narrow groups on the GPU.
//
// A block takes a tile of places for some groups. It loads the pixels that the
// tile meets, and the groups' weights, into shared memory, each once; a warp
// computes places side by side for some channels of one group, so that its
// threads read neighbouring pixels and the same weights.
//
// An input gradient with strides is a convolution of its own for each remainder
// of the places modulo the strides, by the taps that those meet.

#ifndef KCONV_ALGORITHMS_GROUPED_CUDA_IMAGE_H_
#define KCONV_ALGORITHMS_GROUPED_CUDA_IMAGE_H_

#include <cstdint>

#include "algorithms/grouped/cuda_box.h"
#include "algorithms/grouped/cuda_plan.h"
#include "cuda/finish.h"
#include "cuda/grid_axis.h"
#include "cuda/phases.h"
#include "cuda/words.h"

namespace kconv::grouped {

// Threads sum kChannels channels of kPlaces places.
template <int kChannels>
struct CudaImageKernel {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;
  static constexpr int kLeastBlocks = 2;
  static constexpr int kPlaces = CudaImagePlan::kSums / kChannels;

  CudaImagePlan plan;
  const void* read;
  const void* filter;
  const void* bias;  // or null
  Activation activation;
  void* written;

  cuda::Launch Launch() const {
    return {plan.blocks, plan.Threads(), plan.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    int number = static_cast<int>(thread.block);
    KCONV_FORGET(number);
    const Block b = BlockOf(number);
    auto* box = static_cast<CudaFour*>(shared);
    auto* weights = reinterpret_cast<float*>(
        box + int64_t{plan.box.plane} * plan.box.by_planes.divisor);
    if (step == 0) {
      LoadCudaBox(read, plan.type, plan.read, b.corner, plan.box, thread.index,
                  thread.count, box);
      LoadWeights(b, thread, weights);
    } else {
      Compute(b, thread.index, box, weights);
    }
  }

 private:
  struct Block {
    cuda::Phase y, x;
    int first_y, first_x;  // places of the grid
    CudaCorner corner;
  };
  KCONV_HOST_DEVICE Block BlockOf(int rest) const {
    Block b;
    b.corner.group = plan.chunks.Split(&rest) * plan.of_block;
    const int left = plan.groups - b.corner.group;
    b.corner.groups = left < plan.of_block ? left : plan.of_block;
    b.x = plan.x.At(plan.phases_x.Split(&rest));
    b.y = plan.y.At(plan.phases_y.Split(&rest));
    const CudaTiling::Place corner = plan.tiling.CornerOf(rest);
    b.first_y = corner.y;
    b.first_x = corner.x;
    b.corner.image = corner.image;
    b.corner.y = b.y.from + plan.y.stride * b.first_y;
    b.corner.x = b.x.from + plan.x.stride * b.first_x;
    return b;
  }

  // weights[group][tap of the phase][channel][written channel], zeros where
  // there is none.
  KCONV_HOST_DEVICE void LoadWeights(const Block& b, const cuda::Thread& thread,
                                     float* to) const {
    const int width = plan.blocks_n * kChannels, depth = plan.box.fours * 4;
    const int of_tap = width * depth;
    const int taps = b.y.taps * b.x.taps;
    for (int i = thread.index; i < b.corner.groups * taps * of_tap;
         i += thread.count) {
      const int n = i % width, c = i / width % depth;
      const int tap = i / of_tap % taps, group = i / of_tap / taps;
      float weight = 0;
      if (n < plan.written.of_group && c < plan.read.of_group) {
        const int at =
            (b.y.tap + plan.y.tap_step * (tap / b.x.taps)) * plan.kernel_x +
            b.x.tap + plan.x.tap_step * (tap % b.x.taps);
        const int in = plan.flip ? n : c, out = plan.flip ? c : n;
        const int out_of_group =
            plan.flip ? plan.read.of_group : plan.written.of_group;
        weight = cuda::WidenBits(
            cuda::LoadBits(
                filter,
                (int64_t{at} * plan.filter_channels + in) * plan.filter_row +
                    (b.corner.group + group) * out_of_group + out,
                plan.type.half),
            plan.type.dtype);
      }
      to[i] = weight;
    }
  }

  KCONV_HOST_DEVICE void Compute(const Block& b, int index, const CudaFour* box,
                                 const float* weights) const {
    const int lane = index % 32;
    const int warp = index / 32 % plan.warps;
    const int unit = index / 32 / plan.warps;
    const int group = unit / plan.blocks_n;
    const int first = unit % plan.blocks_n * kChannels;
    if (group >= b.corner.groups) return;
    const int width = plan.blocks_n * kChannels;
    const int taps = b.y.taps * b.x.taps;
    box += group * plan.box.fours * plan.box.plane;
    weights += group * plan.Weights(taps) + first;

    int offset[kPlaces];
    KCONV_UNROLL
    for (int p = 0; p < kPlaces; ++p) {
      const CudaTiling::Place place =
          plan.tiling.PlaceOf(warp * plan.Places() + p * 32 + lane);
      offset[p] = (place.image * plan.box.rows + place.y * plan.y.stride) *
                      plan.box.columns +
                  place.x * plan.x.stride;
    }
    float sum[kPlaces][kChannels] = {};
    for (int tap_y = 0; tap_y < b.y.taps; ++tap_y) {
      for (int tap_x = 0; tap_x < b.x.taps; ++tap_x) {
        const CudaFour* from =
            box + tap_y * plan.y.step * plan.box.columns + tap_x * plan.x.step;
        for (int four = 0; four < plan.box.fours; ++four) {
          Add(from, offset, weights, width, sum);
          from += plan.box.plane;
          weights += 4 * width;
        }
      }
    }
    Write(b, group, first, warp * plan.Places() + lane, sum);
  }

  // Four channels of a tap.
  KCONV_HOST_DEVICE static void Add(const CudaFour* from,
                                    const int (&offset)[kPlaces],
                                    const float* weights, int width,
                                    float (&sum)[kPlaces][kChannels]) {
    CudaFour pixel[kPlaces];
    KCONV_UNROLL
    for (int p = 0; p < kPlaces; ++p) pixel[p] = from[offset[p]];
    KCONV_UNROLL
    for (int c = 0; c < 4; ++c) {
      KCONV_UNROLL
      for (int n = 0; n < kChannels; n += 4) {
        const CudaFour weight =
            *reinterpret_cast<const CudaFour*>(weights + c * width + n);
        KCONV_UNROLL
        for (int p = 0; p < kPlaces; ++p) {
          KCONV_UNROLL
          for (int i = 0; i < 4; ++i) {
            sum[p][n + i] += pixel[p].value[c] * weight.value[i];
          }
        }
      }
    }
  }

  // The first of the places is number `place` of the tile, 32 apart.
  KCONV_HOST_DEVICE void Write(const Block& b, int group, int first, int place,
                               float (&sum)[kPlaces][kChannels]) const {
    const int left = plan.written.of_group - first;
    const int channel =
        (b.corner.group + group) * plan.written.of_group + first;
    KCONV_UNROLL
    for (int n = 0; n < kChannels; ++n) {
      float add = 0;
      if (bias != nullptr && n < left) {
        add = cuda::WidenBits(cuda::LoadBits(bias, channel + n, plan.type.half),
                              plan.type.dtype);
      }
      KCONV_UNROLL
      for (int p = 0; p < kPlaces; ++p) {
        sum[p][n] = cuda::Activate(sum[p][n] + add, activation);
      }
    }
    const int64_t base = int64_t{channel} * plan.written.channel;
    KCONV_UNROLL
    for (int p = 0; p < kPlaces; ++p, place += 32) {
      const CudaTiling::Place of_tile = plan.tiling.PlaceOf(place);
      const int image = b.corner.image + of_tile.image;
      const int64_t y =
          b.y.first + int64_t{plan.y.pitch} * (b.first_y + of_tile.y);
      const int64_t x =
          b.x.first + int64_t{plan.x.pitch} * (b.first_x + of_tile.x);
      if (image >= plan.written.batch || y >= plan.written.height ||
          x >= plan.written.width) {
        continue;
      }
      const int64_t at = base + image * plan.written.image +
                         (y * plan.written.width + x) * plan.written.pixel;
      KCONV_UNROLL
      for (int n = 0; n < kChannels; n += 4) {
        if (n >= left) break;
        if (plan.written.quads) {
          cuda::StoreQuad(written, at + n, plan.type, sum[p] + n);
          continue;
        }
        KCONV_UNROLL
        for (int i = 0; i < 4; ++i) {
          if (n + i >= left) break;
          cuda::StoreBits(written, at + int64_t{n + i} * plan.written.channel,
                          plan.type.half,
                          cuda::NarrowBits(sum[p][n + i], plan.type.dtype));
        }
      }
    }
  }
};

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_CUDA_IMAGE_H_
