// Gradients by the offsets and the mask: of each sample the products of its
// four corners with the gradients by its values, summed over channels.

#ifndef KCONV_DEFORMABLE_CUDA_POINTS_H_
#define KCONV_DEFORMABLE_CUDA_POINTS_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_four.h"
#include "deformable/cuda_tile.h"
#include "deformable/cuda_values.h"
#include "deformable/sampling.h"

namespace kconv::deformable {

// Some threads side by side share a sample's channels, kCount at a time.
template <typename Element, int kCount>
struct CudaPoints {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;
  static constexpr int kLanes = 8;  // a line of 128 bytes of float32

  CudaValues<Sum> values;
  int32_t offset_groups, offset_group_channels;
  int32_t first_group, groups;  // offset groups of the slice
  int32_t channels, width;      // of the image
  const Element* input;
  const Sample<Sum>* samples;
  Sum* gradients;  // by dy, dx and the mask: these are added to

  int64_t Count() const {
    return int64_t{values.pixels} * groups * values.taps;
  }
  cuda::Launch Launch() const {
    constexpr int64_t kPoints = kMostThreads / kLanes;
    return {(Count() + kPoints - 1) / kPoints, kMostThreads,
            kMostThreads * kCorners * int64_t{sizeof(Sum)}};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    Sum* dots = static_cast<Sum*>(shared);
    if (step == 0) {
      const Place place = PlaceOf(thread, thread.index / kLanes);
      Sum dot[kCorners] = {};
      if (place.exists) Multiply(place, thread.index % kLanes, dot);
      PutFour(dot, dots + thread.index * kCorners);
    } else if (thread.index < thread.count / kLanes) {
      const Place place = PlaceOf(thread, thread.index);
      if (place.exists) Add(place, dots + thread.index * kLanes * kCorners);
    }
  }

 private:
  struct Place {
    bool exists;
    int32_t group, row;  // row: output pixel x taps + tap
    int32_t number;      // of the sample
  };

  // The block's point `i`.
  KCONV_HOST_DEVICE Place PlaceOf(const cuda::Thread& thread, int i) const {
    const auto number =
        static_cast<int32_t>(thread.block * (thread.count / kLanes) + i);
    Place p;
    const int32_t of_group = number / values.taps;
    const int32_t tap = number - of_group * values.taps;
    const int32_t pixel = of_group / groups;
    p.exists = pixel < values.pixels;
    p.group = first_group + (of_group - pixel * groups);
    p.row = (values.first_pixel + pixel) * values.taps + tap;
    p.number =
        ((values.first_pixel + pixel) * offset_groups + p.group) * values.taps +
        tap;
    return p;
  }

  KCONV_HOST_DEVICE void Multiply(const Place& p, int lane, Sum* dot) const {
    const Sample<Sum> s = samples[p.number];
    if (s.inside == 0) return;
    int32_t begin = p.group * offset_group_channels;
    int32_t end = begin + offset_group_channels;
    if (begin < values.first_channel) begin = values.first_channel;
    if (end > values.first_channel + values.channels) {
      end = values.first_channel + values.channels;
    }
    for (int32_t c = begin + lane * kCount; c < end; c += kLanes * kCount) {
      Sum by_value[kCount];
      Load(values.At(p.row, c), by_value);
      KCONV_UNROLL
      for (int k = 0; k < kCorners; ++k) {
        if (!(s.inside >> k & 1)) continue;
        Sum corner[kCount];
        Load(input + (CornerPixel(s.at, k, width) * channels + c), corner);
        KCONV_UNROLL
        for (int j = 0; j < kCount; ++j) dot[k] += by_value[j] * corner[j];
      }
    }
  }

  template <typename T>
  KCONV_HOST_DEVICE static void Load(const T* from, Sum* to) {
    if constexpr (kCount == 4) {
      LoadFour(from, 4, true, to);
    } else {
      to[0] = Widen(from[0]);
    }
  }

  KCONV_HOST_DEVICE void Add(const Place& p, const Sum* lanes) const {
    const Sample<Sum> s = samples[p.number];
    // Without a corner: NaN already, or nothing.
    if (s.inside == 0) return;
    Sum weight[kCorners], dot[kCorners] = {};
    CornerWeights(s, weight);
    for (int lane = 0; lane < kLanes; ++lane) {
      Sum part[kCorners];
      CopyFour(lanes + lane * kCorners, part);
      KCONV_UNROLL
      for (int k = 0; k < kCorners; ++k) dot[k] += part[k];
    }
    AddPointGradients(s, weight, dot, gradients + int64_t{3} * p.number);
  }
};

// The sums by offsets and mask, complete, as elements.
template <typename Element>
struct CudaNarrowPoints {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  int64_t count;
  const Sum* gradients;
  Element* by_offsets;
  Element* by_mask;  // or null

  cuda::Launch Launch() const {
    return {(count + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t i = thread.block * thread.count + thread.index;
    if (i >= count) return;
    Narrow(gradients[3 * i], by_offsets + 2 * i);
    Narrow(gradients[3 * i + 1], by_offsets + 2 * i + 1);
    if (by_mask != nullptr) Narrow(gradients[3 * i + 2], by_mask + i);
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_POINTS_H_
