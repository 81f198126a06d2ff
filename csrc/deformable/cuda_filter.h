// Filter gradient: a tile of taps x channels and filters of a group, summed
// over a slice of the output pixels. The block samples the image into shared
// memory, as in the forward pass, now with the pixels as the depth.

#ifndef KCONV_DEFORMABLE_CUDA_FILTER_H_
#define KCONV_DEFORMABLE_CUDA_FILTER_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_sampler.h"
#include "deformable/cuda_tile.h"

namespace kconv::deformable {

template <typename Element>
struct CudaFilter {
  using Sum = SumType<Element>;
  using State = CudaSums<Sum>;
  static constexpr int kMostThreads = kCudaTileThreads<Sum>;

  CudaTile<Sum> tile;
  CudaSampler<Element> sampler;
  int32_t pixels, groups;
  int32_t row_tiles, column_tiles;
  int32_t slices, slice_pixels;
  int32_t filters, group_filters;
  bool whole;               // four filters are of one group, and aligned
  const Element* upstream;  // gradient of the output
  Element* gradient;        // where there is one slice, else
  Sum* partials;            // [slice][tap][channel][filter]

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
    const int32_t pixel = place.begin + step * kCudaDepth;
    if (pixel < place.end) Fill(place, pixel, step, thread, shared);
    if (step > 0) tile.Multiply(thread, shared, step - 1, state);
    if (pixel >= place.end) Write(place, thread, *state);
  }

 private:
  // What a block computes.
  struct Place {
    int32_t slice, group, filter;  // the first filter, of the group
    int32_t column;                // of the sampler, the first one
    int32_t begin, end;            // pixels
  };

  KCONV_HOST_DEVICE Place PlaceOf(int64_t number) const {
    auto block = static_cast<int32_t>(number);
    Place p;
    p.filter = block % column_tiles * tile.Columns();
    block /= column_tiles;
    p.column = block % row_tiles * tile.Rows();
    block /= row_tiles;
    p.group = block % groups;
    p.slice = block / groups;
    p.begin = p.slice * slice_pixels;
    p.end = p.begin + slice_pixels;
    if (p.end > pixels) p.end = pixels;
    return p;
  }

  KCONV_HOST_DEVICE void Fill(const Place& p, int32_t pixel, int buffer,
                              const cuda::Thread& thread, void* shared) const {
    FillLines(thread, tile.Rows(), tile.RowFactor(shared, buffer),
              [&](int step, int first, Sum* value) {
                if (pixel + step < p.end) {
                  sampler.Fetch(pixel + step, p.group, p.column + first, value);
                } else {
                  KCONV_UNROLL
                  for (int j = 0; j < 4; ++j) value[j] = 0;
                }
              });
    const Element* from = upstream + p.group * group_filters + p.filter;
    const int32_t rest = group_filters - p.filter;
    FillLines(thread, tile.Columns(), tile.ColumnFactor(shared, buffer),
              [&](int step, int first, Sum* value) {
                LoadFour(from + int64_t{pixel + step} * filters + first,
                         pixel + step < p.end ? rest - first : 0, whole, value);
              });
  }

  KCONV_HOST_DEVICE void Write(const Place& p, const cuda::Thread& thread,
                               const State& state) const {
    tile.ForFours(thread, state, [&](int row, int column, const Sum* sums) {
      const int32_t line = p.column + row;
      if (line >= sampler.columns) return;
      const int32_t rest = group_filters - p.filter - column;
      const int64_t at =
          int64_t{line} * filters + p.group * group_filters + p.filter + column;
      if (partials != nullptr) {
        const int64_t elements = int64_t{sampler.columns} * filters;
        StoreFour(sums, rest, whole, partials + p.slice * elements + at);
      } else {
        StoreFour(sums, rest, whole, gradient + at);
      }
    });
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_FILTER_H_
