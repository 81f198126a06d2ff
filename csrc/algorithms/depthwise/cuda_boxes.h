// Between images in device memory, of any type, and boxes of floats in shared
// memory. The threads of a block share the work.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_CUDA_BOXES_H_
#define KCONV_ALGORITHMS_DEPTHWISE_CUDA_BOXES_H_

#include <cstdint>

#include "algorithms/depthwise/cuda_plan.h"
#include "cuda/finish.h"
#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "half.h"

namespace kconv::depthwise {

// Elements that are loaded or stored by one instruction.
template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) CudaPack {
  Element element[kCount];
};

// kCount floats between registers and shared memory, four by one instruction
// where there are as many: threads side by side would else meet in few banks.
// Boxes whose channels lie side by side have a multiple of four of them.
template <int kCount>
KCONV_HOST_DEVICE inline void CopyFloats(const float* from, float* to) {
  constexpr int kStep = kCount % 4 == 0 ? 4 : 1;
  using Pack = CudaPack<float, kStep>;
  KCONV_UNROLL
  for (int i = 0; i < kCount; i += kStep) {
    *reinterpret_cast<Pack*>(to + i) = *reinterpret_cast<const Pack*>(from + i);
  }
}

// A tile: its image, first channel, and first place in what is written.
struct CudaTile {
  int64_t image, channel;
  int channels;  // that there are
  int y, x;
};

// Its channels only: there may be no tile at all.
KCONV_HOST_DEVICE inline CudaTile ChannelsOf(const CudaTiles& t,
                                             int64_t chunk) {
  CudaTile tile = {};
  tile.channel = chunk * t.chunk;
  const int64_t rest = t.channels - tile.channel;
  tile.channels = rest < t.chunk ? static_cast<int>(rest) : t.chunk;
  return tile;
}
KCONV_HOST_DEVICE inline CudaTile TileOf(const CudaTiles& t, int64_t number,
                                         int64_t chunk) {
  CudaTile tile = ChannelsOf(t, chunk);
  tile.x = static_cast<int>(number % t.tiles_x) * t.tile_columns;
  number /= t.tiles_x;
  tile.y = static_cast<int>(number % t.tiles_y) * t.tile_rows;
  tile.image = number / t.tiles_y;
  return tile;
}

// Whether a place along an axis of `size` pixels, with `zeros` between two of
// them, holds a pixel.
KCONV_HOST_DEVICE inline bool IsPixel(int at, int zeros, int size) {
  return at >= 0 && (at & zeros) == 0 && at >> zeros < size;
}

// Calls body(channel, row, column) for every `kStep` channels of a box, by the
// threads together, neighbours in device memory by neighbours.
template <int kStep, typename Body>
KCONV_HOST_DEVICE inline void ForBox(const CudaBox& box, bool last,
                                     const CudaDivisor& inner,
                                     const CudaDivisor& outer,
                                     const cuda::Thread& thread,
                                     const Body& body) {
  const int all = box.channels / kStep * box.rows * box.columns;
  for (int i = thread.index; i < all; i += thread.count) {
    // [row][column][channel] or [channel][row][column]
    const int line = inner.Divide(i);
    const int within = i - line * static_cast<int>(inner.divisor);
    const int first = outer.Divide(line);
    const int second = line - first * static_cast<int>(outer.divisor);
    if (last) {
      body(within * kStep, first, second);
    } else {
      body(first, second, within);
    }
  }
}

// The divisors of ForBox.
struct CudaWalk {
  CudaDivisor inner, outer;
  CudaWalk() = default;
  CudaWalk(const CudaBox& box, bool last, int step)
      : inner(last ? box.channels / step : box.columns),
        outer(last ? box.columns : box.rows) {}
};

// box = what lies from (y, x) of the image; zero where there is none.
template <typename Element, int kStep>
KCONV_HOST_DEVICE inline void LoadBoxAs(const Element* from,
                                        const CudaImage& image,
                                        const CudaTile& tile, int y, int x,
                                        const CudaBox& box, bool last,
                                        const CudaWalk& walk,
                                        const cuda::Thread& thread, float* to) {
  from += tile.image * image.image + tile.channel * image.channel;
  ForBox<kStep>(
      box, last, walk.inner, walk.outer, thread,
      [&](int channel, int row, int column) {
        const int at_y = y + row, at_x = x + column;
        alignas(16) float value[kStep] = {};
        if (channel < tile.channels &&
            IsPixel(at_y, image.zeros_y, image.height) &&
            IsPixel(at_x, image.zeros_x, image.width)) {
          using Pack = CudaPack<Element, kStep>;
          const int64_t pixel = int64_t{at_y >> image.zeros_y} * image.width +
                                (at_x >> image.zeros_x);
          const Pack pack = *reinterpret_cast<const Pack*>(
              from + pixel * image.pixel + channel * image.channel);
          KCONV_UNROLL
          for (int i = 0; i < kStep; ++i) value[i] = Widen(pack.element[i]);
        }
        CopyFloats<kStep>(value, to + row * box.row + column * box.column +
                                     channel * box.channel);
      });
}

// activation(box + bias), rounded to the elements of the image.
template <typename Element, int kStep>
KCONV_HOST_DEVICE inline void StoreBoxAs(
    const float* from, const CudaBox& box, bool last, const CudaWalk& walk,
    const Element* bias, Activation activation, const CudaImage& image,
    const CudaTile& tile, const cuda::Thread& thread, Element* to) {
  to += tile.image * image.image + tile.channel * image.channel;
  ForBox<kStep>(
      box, last, walk.inner, walk.outer, thread,
      [&](int channel, int row, int column) {
        const int y = tile.y + row, x = tile.x + column;
        if (channel >= tile.channels || y >= image.height || x >= image.width) {
          return;
        }
        using Pack = CudaPack<Element, kStep>;
        Pack pack;
        alignas(16) float value[kStep];
        CopyFloats<kStep>(
            from + row * box.row + column * box.column + channel * box.channel,
            value);
        KCONV_UNROLL
        for (int i = 0; i < kStep; ++i) {
          float sum = value[i];
          if (bias != nullptr) sum += Widen(bias[tile.channel + channel + i]);
          Narrow(cuda::Activate(sum, activation), &pack.element[i]);
        }
        const int64_t pixel = int64_t{y} * image.width + x;
        *reinterpret_cast<Pack*>(to + pixel * image.pixel +
                                 channel * image.channel) = pack;
      });
}

// Calls body(Element*, std::integral_constant step) of a type and a vector
// length that are known when the program runs, the same for all threads.
template <typename Element, int kLanes, typename Body>
KCONV_HOST_DEVICE inline void WithVector(int vector, const Body& body) {
  if (vector == 1) {
    body(Element{}, CudaPack<char, 1>{});
  } else {
    body(Element{}, CudaPack<char, kLanes>{});
  }
}
template <typename Body>
KCONV_HOST_DEVICE inline void WithCudaElement(const CudaTiles& t,
                                              const Body& body) {
  switch (t.dtype) {
    case DType::kFloat16:
      return WithVector<Float16, 8>(t.vector, body);
    case DType::kBFloat16:
      return WithVector<BFloat16, 8>(t.vector, body);
    default:
      return WithVector<float, 4>(t.vector, body);
  }
}

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_CUDA_BOXES_H_
