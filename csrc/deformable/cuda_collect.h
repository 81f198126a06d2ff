// The gradient by the image: each pixel collects what the samples that read it
// give, in the order of cuda_sort.h.

#ifndef KCONV_DEFORMABLE_CUDA_COLLECT_H_
#define KCONV_DEFORMABLE_CUDA_COLLECT_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_four.h"
#include "deformable/cuda_locate.h"
#include "deformable/cuda_tile.h"
#include "deformable/cuda_values.h"
#include "deformable/sampling.h"

namespace kconv::deformable {

// A sample as its corners see it.
template <typename Sum>
struct CudaTouch {
  Sum weight[kCorners];  // 0: the corner is not read
  Sum mask;
  int32_t row;  // output pixel x taps + tap
};

// touches[i] = those of the sample that is the i-th in order.
template <typename Sum>
struct CudaTouchSamples {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  int64_t count;
  int32_t taps, offset_groups;
  const int32_t* numbers;
  const Sample<Sum>* samples;
  CudaTouch<Sum>* touches;

  cuda::Launch Launch() const {
    return {(count + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t i = thread.block * thread.count + thread.index;
    if (i >= count) return;
    const int32_t number = numbers[i];
    const Sample<Sum> s = samples[number];
    CudaTouch<Sum> touch;
    CornerWeights(s, touch.weight);
    KCONV_UNROLL
    for (int k = 0; k < kCorners; ++k) {
      if (!(s.inside >> k & 1)) touch.weight[k] = 0;
    }
    touch.mask = s.mask;
    touch.row = number / taps / offset_groups * taps + number % taps;
    touches[i] = touch;
  }
};

// starts[image][cell] = where a cell's samples begin, and at last where those
// that read nothing do.
struct CudaCellStarts {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  int64_t images, size, cells_of_image;
  const int32_t* cells;
  int32_t* starts;

  cuda::Launch Launch() const {
    const int64_t count = images * (cells_of_image + 1);
    return {(count + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t i = thread.block * thread.count + thread.index;
    const int64_t image = i / (cells_of_image + 1);
    const int64_t cell = i % (cells_of_image + 1);
    if (image >= images) return;
    // The first that is not below the cell.
    int64_t low = image * size, high = low + size;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (cells[middle] < cell) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    starts[i] = static_cast<int32_t>(low);
  }
};

// A thread goes along kRun pixels of a row, for kCount channels of the slice.
// Each cell that it meets gives to the pixel on the left and to the next one.
template <typename Element, int kCount>
struct CudaCollect {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;
  static constexpr int kRun = 8;

  CudaValues<Sum> values;
  int32_t first_image, images;
  int32_t height, width, channels;
  int32_t offset_groups, offset_group_channels;
  int32_t cells;  // of an offset group
  const CudaTouch<Sum>* touches;
  const int32_t* starts;
  Element* gradient;

  KCONV_HOST_DEVICE int32_t Runs() const { return (width + kRun - 1) / kRun; }
  cuda::Launch Launch() const {
    const int64_t count =
        int64_t{images} * height * Runs() * (values.channels / kCount);
    return {(count + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t item = thread.block * thread.count + thread.index;
    const int32_t fours = values.channels / kCount;
    const int64_t run = item / fours;
    const auto row = static_cast<int32_t>(run / Runs());
    const int32_t image = row / height, y = row - image * height;
    if (image >= images) return;
    const auto of_run = static_cast<int32_t>(item - run * fours);
    const int32_t channel = values.first_channel + of_run * kCount;
    const int32_t begin =
        static_cast<int32_t>(run - int64_t{row} * Runs()) * kRun;
    const int32_t end = begin + kRun < width ? begin + kRun : width;
    const int64_t of_image = int64_t{offset_groups} * cells + 1;
    // The cell of the pixel on the left of the run.
    const int32_t* start = starts + (first_image + image) * of_image +
                           channel / offset_group_channels * cells +
                           (y * width + begin + width);
    const int64_t pixel =
        (int64_t{first_image + image} * height + y) * width + begin;
    Element* to = gradient + pixel * channels + channel;
    // Where row 0 of the gradients by values would lie.
    const int64_t values_at =
        channel - values.first_channel -
        int64_t{values.first_pixel} * values.taps * values.channels;
    Sum here[kCount] = {}, next[kCount] = {};
    // The cell of a pixel, and the one above.
    for (int32_t x = begin - 1; x < end; ++x, ++start) {
      Collect<0>(start, values_at, here, next);
      Collect<2>(start - width, values_at, here, next);
      if (x >= begin) {
        Store(here, to);
        to += channels;
      }
      KCONV_UNROLL
      for (int j = 0; j < kCount; ++j) {
        here[j] = next[j];
        next[j] = 0;
      }
    }
  }

 private:
  // Adds what a cell gives by its corners kCorner and kCorner + 1.
  template <int kCorner>
  KCONV_HOST_DEVICE void Collect(const int32_t* start, int64_t values_at,
                                 Sum* left, Sum* right) const {
    const int32_t end = start[1];
    for (int32_t i = start[0]; i < end; ++i) {
      const CudaTouch<Sum>& touch = touches[i];
      const Sum to_left = touch.weight[kCorner];
      const Sum to_right = touch.weight[kCorner + 1];
      const Sum mask = touch.mask;
      Sum by_value[kCount];
      Load(values.data + (int64_t{touch.row} * values.channels + values_at),
           by_value);
      KCONV_UNROLL
      for (int j = 0; j < kCount; ++j) {
        const Sum masked = mask * by_value[j];
        if (to_left != 0) left[j] += to_left * masked;
        if (to_right != 0) right[j] += to_right * masked;
      }
    }
  }

  KCONV_HOST_DEVICE static void Load(const Sum* from, Sum* to) {
    if constexpr (kCount == 4) {
      CopyFour(from, to);
    } else {
      to[0] = from[0];
    }
  }
  KCONV_HOST_DEVICE static void Store(const Sum* from, Element* to) {
    if constexpr (kCount == 4) {
      StoreFour(from, 4, true, to);
    } else {
      Narrow(from[0], to);
    }
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_COLLECT_H_
