// Forward: a tile of output pixels x filters of a group. For every step through
// taps and channels the block samples the image into shared memory.

#ifndef KCONV_DEFORMABLE_CUDA_FORWARD_H_
#define KCONV_DEFORMABLE_CUDA_FORWARD_H_

#include <cstdint>

#include "cuda/finish.h"
#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_sampler.h"
#include "deformable/cuda_tile.h"

namespace kconv::deformable {

template <typename Element>
struct CudaForward {
  using Sum = SumType<Element>;
  using State = CudaSums<Sum>;
  static constexpr int kMostThreads = kCudaTileThreads<Sum>;

  CudaTile<Sum> tile;
  CudaSampler<Element> sampler;
  int32_t pixels, groups;
  int32_t row_tiles, column_tiles;
  int32_t slices, slice_columns;  // of the sampler's
  int32_t filters, group_filters;
  bool whole;  // four filters are of one group, and aligned
  const Element* filter;
  const Element* bias;  // or null
  Activation activation;
  Element* output;
  Sum* partials;  // [slice][pixel][filter], or null where there is one slice

  cuda::Launch Launch() const {
    return {int64_t{slices} * groups * row_tiles * column_tiles, tile.Threads(),
            tile.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t block) const {
    const Place place = PlaceOf(block);
    return (place.end - place.begin + kCudaDepth - 1) / kCudaDepth + 1;
  }

  KCONV_HOST_DEVICE void Step(int64_t number, const cuda::Thread& thread,
                              void* shared, State* state) const {
    const Place place = PlaceOf(thread.block);
    const auto step = static_cast<int32_t>(number);
    const int32_t column = place.begin + step * kCudaDepth;
    if (column < place.end) Fill(place, column, step, thread, shared);
    if (step > 0) tile.Multiply(thread, shared, step - 1, state);
    if (column >= place.end) Write(place, thread, *state);
  }

 private:
  // What a block computes.
  struct Place {
    int32_t slice, group, pixel, filter;  // the first ones, filter of the group
    int32_t begin, end;                   // columns of the sampler
  };

  // Blocks side by side sample the same pixels.
  KCONV_HOST_DEVICE Place PlaceOf(int64_t number) const {
    auto block = static_cast<int32_t>(number);
    Place p;
    p.filter = block % column_tiles * tile.Columns();
    block /= column_tiles;
    p.pixel = block % row_tiles * tile.Rows();
    block /= row_tiles;
    p.group = block % groups;
    p.slice = block / groups;
    p.begin = p.slice * slice_columns;
    p.end = p.begin + slice_columns;
    if (p.end > sampler.columns) p.end = sampler.columns;
    return p;
  }

  KCONV_HOST_DEVICE void Fill(const Place& p, int32_t column, int buffer,
                              const cuda::Thread& thread, void* shared) const {
    FillTurned(thread, tile.Rows(), tile.RowFactor(shared, buffer),
               [&](int row, int step, Sum* value) {
                 // A slice ends where a step does, or with the columns.
                 if (p.pixel + row < pixels) {
                   sampler.Fetch(p.pixel + row, p.group, column + step, value);
                 } else {
                   KCONV_UNROLL
                   for (int j = 0; j < 4; ++j) value[j] = 0;
                 }
               });
    const Element* weights = filter + p.group * group_filters + p.filter;
    const int32_t rest = group_filters - p.filter;
    FillLines(thread, tile.Columns(), tile.ColumnFactor(shared, buffer),
              [&](int step, int first, Sum* value) {
                const int32_t row = column + step;
                LoadFour(weights + int64_t{row} * filters + first,
                         row < p.end ? rest - first : 0, whole, value);
              });
  }

  KCONV_HOST_DEVICE void Write(const Place& p, const cuda::Thread& thread,
                               const State& state) const {
    tile.ForFours(thread, state, [&](int row, int column, const Sum* sums) {
      const int32_t pixel = p.pixel + row;
      if (pixel >= pixels) return;
      const int32_t rest = group_filters - p.filter - column;
      const int32_t channel = p.group * group_filters + p.filter + column;
      const int64_t at = int64_t{pixel} * filters + channel;
      if (partials != nullptr) {
        StoreFour(sums, rest, whole,
                  partials + int64_t{p.slice} * pixels * filters + at);
        return;
      }
      Sum value[4];
      KCONV_UNROLL
      for (int j = 0; j < 4; ++j) {
        value[j] = sums[j];
        if (bias != nullptr && j < rest) value[j] += Widen(bias[channel + j]);
        value[j] = cuda::Activate(value[j], activation);
      }
      StoreFour(value, rest, whole, output + at);
    });
  }
};

// The end of a forward pass whose columns were cut into slices.
template <typename Element>
struct CudaAddForward {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  const Sum* partials;
  int64_t slices, elements, filters;
  const Element* bias;  // or null
  Activation activation;
  Element* output;

  cuda::Launch Launch() const {
    return {(elements + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t e = thread.block * thread.count + thread.index;
    if (e >= elements) return;
    Sum sum = 0;
    for (int64_t s = 0; s < slices; ++s) sum += partials[s * elements + e];
    if (bias != nullptr) sum += Widen(bias[e % filters]);
    Narrow(cuda::Activate(sum, activation), output + e);
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_FORWARD_H_
