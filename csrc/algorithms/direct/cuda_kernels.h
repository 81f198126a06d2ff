// The sliding window on the GPU: a thread for each element of what is written,
// numbered as they lie in memory, so that threads side by side write side by
// side and read most operands so too.

#ifndef KCONV_ALGORITHMS_DIRECT_CUDA_KERNELS_H_
#define KCONV_ALGORITHMS_DIRECT_CUDA_KERNELS_H_

#include <cstdint>

#include "algorithms/direct/direct.h"
#include "cuda/finish.h"
#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "half.h"

namespace kconv::direct {

inline constexpr int kCudaThreads = 256;

// Where an element of an image lies: [image][d][h][w] and channel.
struct CudaPlace {
  int64_t image, channel;
  int64_t at[3];
};

// Of element `number` of a tensor, whose pixels or whose channels (`last`) lie
// side by side.
KCONV_HOST_DEVICE inline CudaPlace PlaceOf(int64_t number, const int64_t* size,
                                           int64_t channels, bool last) {
  CudaPlace place;
  if (last) {
    place.channel = number % channels;
    number /= channels;
  }
  for (int dim = 2; dim >= 0; --dim) {
    place.at[dim] = number % size[dim];
    number /= size[dim];
  }
  if (!last) {
    place.channel = number % channels;
    number /= channels;
  }
  place.image = number;
  return place;
}

KCONV_HOST_DEVICE inline int64_t CudaPixel(int64_t d, int64_t h, int64_t w,
                                           const int64_t* size) {
  return (d * size[1] + h) * size[2] + w;
}

KCONV_HOST_DEVICE inline bool CudaWithin(int64_t at, int64_t size) {
  return at >= 0 && at < size;
}

// The output position whose tap lies on a pixel; false where there is none.
KCONV_HOST_DEVICE inline bool CudaOutputAt(const Window& s, int dim,
                                           int64_t pixel, int64_t tap,
                                           int64_t* at) {
  const int64_t shifted = pixel + s.pad[dim] - tap * s.dilation[dim];
  if (shifted < 0) return false;
  if (s.stride[dim] == 1) {
    *at = shifted;
  } else {
    if (shifted % s.stride[dim] != 0) return false;
    *at = shifted / s.stride[dim];
  }
  return *at < s.output[dim];
}

// What the passes that write an image have in common.
template <typename Element>
struct CudaImagePass {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  Window s;
  const Element* read;  // an image
  const Element* filter;
  const Element* bias;  // or null
  Activation activation;
  Element* to;
  int64_t items;  // elements written

  cuda::Launch Launch() const {
    return {(items + kCudaThreads - 1) / kCudaThreads, kCudaThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Write(int64_t item, int64_t channel, Sum sum) const {
    if (bias != nullptr) sum += Widen(bias[channel]);
    Narrow(cuda::Activate(sum, activation), to + item);
  }
};

template <typename Element>
struct CudaForward : CudaImagePass<Element> {
  using typename CudaImagePass<Element>::Sum;
  using typename CudaImagePass<Element>::State;

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t item = thread.block * thread.count + thread.index;
    if (item >= this->items) return;
    const Window& s = this->s;
    const int64_t filters = s.groups * s.out_channels;
    const CudaPlace out =
        PlaceOf(item, s.output, filters, s.output_channel == 1);
    const int64_t group = out.channel / s.out_channels;
    const Element* image = this->read + out.image * s.input_image +
                           group * s.in_channels * s.input_channel;
    Sum sum = 0;
    for (int64_t i = 0; i < s.kernel[0]; ++i) {
      const int64_t d = out.at[0] * s.stride[0] - s.pad[0] + i * s.dilation[0];
      if (!CudaWithin(d, s.input[0])) continue;
      for (int64_t j = 0; j < s.kernel[1]; ++j) {
        const int64_t h =
            out.at[1] * s.stride[1] - s.pad[1] + j * s.dilation[1];
        if (!CudaWithin(h, s.input[1])) continue;
        for (int64_t k = 0; k < s.kernel[2]; ++k) {
          const int64_t w =
              out.at[2] * s.stride[2] - s.pad[2] + k * s.dilation[2];
          if (!CudaWithin(w, s.input[2])) continue;
          const Element* from =
              image + CudaPixel(d, h, w, s.input) * s.input_pixel;
          const Element* weights =
              this->filter +
              CudaPixel(i, j, k, s.kernel) * s.in_channels * filters +
              out.channel;
          for (int64_t c = 0; c < s.in_channels; ++c) {
            sum +=
                Widen(from[c * s.input_channel]) * Widen(weights[c * filters]);
          }
        }
      }
    }
    this->Write(item, out.channel, sum);
  }
};

template <typename Element>
struct CudaInputGradient : CudaImagePass<Element> {
  using typename CudaImagePass<Element>::Sum;
  using typename CudaImagePass<Element>::State;

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t item = thread.block * thread.count + thread.index;
    if (item >= this->items) return;
    const Window& s = this->s;
    const int64_t filters = s.groups * s.out_channels;
    const CudaPlace in =
        PlaceOf(item, s.input, s.groups * s.in_channels, s.input_channel == 1);
    const int64_t group = in.channel / s.in_channels;
    const int64_t c = in.channel % s.in_channels;
    const int64_t first = group * s.out_channels;
    const Element* image =
        this->read + in.image * s.output_image + first * s.output_channel;
    Sum sum = 0;
    for (int64_t i = 0; i < s.kernel[0]; ++i) {
      int64_t d;
      if (!CudaOutputAt(s, 0, in.at[0], i, &d)) continue;
      for (int64_t j = 0; j < s.kernel[1]; ++j) {
        int64_t h;
        if (!CudaOutputAt(s, 1, in.at[1], j, &h)) continue;
        for (int64_t k = 0; k < s.kernel[2]; ++k) {
          int64_t w;
          if (!CudaOutputAt(s, 2, in.at[2], k, &w)) continue;
          const Element* from =
              image + CudaPixel(d, h, w, s.output) * s.output_pixel;
          const Element* weights =
              this->filter +
              (CudaPixel(i, j, k, s.kernel) * s.in_channels + c) * filters +
              first;
          for (int64_t o = 0; o < s.out_channels; ++o) {
            sum += Widen(from[o * s.output_channel]) * Widen(weights[o]);
          }
        }
      }
    }
    this->Write(item, in.channel, sum);
  }
};

// Element e of the filter, summed over slice s of the output's pixels.
template <typename Element>
struct CudaFilterGradient {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  Window s;
  const Element* input;
  const Element* output;
  Sum* partials;    // [slice][element], or null where there is one slice
  Element* filter;  // then
  int64_t elements;
  int64_t slices, pixels, slice_pixels;

  int64_t BlocksOfSlice() const {
    return (elements + kCudaThreads - 1) / kCudaThreads;
  }
  cuda::Launch Launch() const {
    return {BlocksOfSlice() * slices, kCudaThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t blocks = (elements + kCudaThreads - 1) / kCudaThreads;
    const int64_t slice = thread.block / blocks;
    const int64_t e = thread.block % blocks * thread.count + thread.index;
    if (e >= elements) return;
    const int64_t filters = s.groups * s.out_channels;
    const int64_t filter_of = e % filters;
    const int64_t c = e / filters % s.in_channels;
    const int64_t tap = e / filters / s.in_channels;
    const int64_t taps[3] = {tap / s.kernel[2] / s.kernel[1],
                             tap / s.kernel[2] % s.kernel[1],
                             tap % s.kernel[2]};
    const int64_t channel = filter_of / s.out_channels * s.in_channels + c;

    // A sum for each row first, so that errors grow with its length plus the
    // number of rows.
    Sum total = 0;
    const int64_t end =
        slice + 1 < slices ? (slice + 1) * slice_pixels : pixels;
    int64_t pixel = slice * slice_pixels;
    while (pixel < end) {
      const int64_t x = pixel % s.output[2];
      const int64_t rest = end - pixel, of_row = s.output[2] - x;
      const int64_t count = rest < of_row ? rest : of_row;
      const int64_t row = pixel / s.output[2];
      const int64_t image = row / s.output[1] / s.output[0];
      const int64_t od = row / s.output[1] % s.output[0];
      const int64_t oh = row % s.output[1];
      pixel += count;
      const int64_t d = od * s.stride[0] - s.pad[0] + taps[0] * s.dilation[0];
      const int64_t h = oh * s.stride[1] - s.pad[1] + taps[1] * s.dilation[1];
      if (!CudaWithin(d, s.input[0]) || !CudaWithin(h, s.input[1])) continue;
      const Element* from = input + image * s.input_image +
                            channel * s.input_channel +
                            CudaPixel(d, h, 0, s.input) * s.input_pixel;
      const Element* gradient = output + image * s.output_image +
                                filter_of * s.output_channel +
                                CudaPixel(od, oh, x, s.output) * s.output_pixel;
      int64_t w = x * s.stride[2] - s.pad[2] + taps[2] * s.dilation[2];
      Sum sum = 0;
      for (int64_t i = 0; i < count; ++i, w += s.stride[2]) {
        if (!CudaWithin(w, s.input[2])) continue;
        sum += Widen(from[w * s.input_pixel]) *
               Widen(gradient[i * s.output_pixel]);
      }
      total += sum;
    }
    if (partials != nullptr) {
      partials[slice * elements + e] = total;
    } else {
      Narrow(total, filter + e);
    }
  }
};

}  // namespace kconv::direct

#endif  // KCONV_ALGORITHMS_DIRECT_CUDA_KERNELS_H_
