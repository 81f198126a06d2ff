// The gradients by the sampled values: those of the output times the transposed
// filter. They are kept for some images and a slice of the channels at a time;
// cuda_points.h and cuda_collect.h read them.

#ifndef KCONV_DEFORMABLE_CUDA_VALUES_H_
#define KCONV_DEFORMABLE_CUDA_VALUES_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_tile.h"

namespace kconv::deformable {

// Gradients [pixel][tap][channel] by the values of some output pixels and
// channels.
template <typename Sum>
struct CudaValues {
  Sum* data;
  int64_t first_pixel, pixels;
  int64_t first_channel, channels;
  int64_t taps;

  // Of pixel x taps + tap, pixels numbered through the batch.
  KCONV_HOST_DEVICE Sum* At(int64_t row, int64_t channel) const {
    return data + (row - first_pixel * taps) * channels + channel -
           first_channel;
  }
};

// A tile of output pixels x columns, taps x channels of a group: those of its
// channels that are in the slice.
template <typename Element>
struct CudaValueGradient {
  using Sum = SumType<Element>;
  using State = CudaSums<Sum>;
  static constexpr int kMostThreads = kCudaThreads;

  CudaTile<Sum> tile;
  CudaValues<Sum> values;
  int64_t groups, group_channels;                             // in the slice
  int64_t first_group, all_group_channels, skipped_channels;  // of a group
  int64_t row_tiles, column_tiles;
  int64_t filters, group_filters;
  bool whole;         // four filters are of one group, and aligned
  bool whole_values;  // four columns are of one tap, and aligned
  const Element* upstream;
  const Element* filter;

  cuda::Launch Launch() const {
    return {groups * row_tiles * column_tiles, tile.Threads(),
            tile.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const {
    return (group_filters + kCudaDepth - 1) / kCudaDepth + 1;
  }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State* state) const {
    const Place place = PlaceOf(thread.block);
    const int64_t depth = step * kCudaDepth;
    if (depth < group_filters) Fill(place, depth, step, thread, shared);
    if (step > 0) tile.Multiply(thread, shared, step - 1, state);
    if (depth >= group_filters) Write(place, thread, *state);
  }

 private:
  // What a block computes: the first of each, the group of the slice.
  struct Place {
    int64_t group, pixel;
    int32_t column;
  };

  KCONV_HOST_DEVICE Place PlaceOf(int64_t block) const {
    Place p;
    p.column = static_cast<int32_t>(block % column_tiles * tile.Columns());
    block /= column_tiles;
    p.pixel = block % row_tiles * tile.Rows();
    p.group = block / row_tiles;
    return p;
  }

  KCONV_HOST_DEVICE int32_t Columns() const {
    return static_cast<int32_t>(values.taps * group_channels);
  }

  KCONV_HOST_DEVICE void Fill(const Place& p, int64_t depth, int64_t buffer,
                              const cuda::Thread& thread, void* shared) const {
    const int64_t first = (first_group + p.group) * group_filters + depth;
    const int64_t rest = group_filters - depth;
    const Element* rows =
        upstream + (values.first_pixel + p.pixel) * filters + first;
    FillTurned(thread, tile.Rows(), tile.RowLine(),
               tile.RowFactor(shared, buffer),
               [&](int row, int step, Sum* value) {
                 LoadFour(rows + row * filters + step,
                          p.pixel + row < values.pixels ? rest - step : 0,
                          whole, value);
               });
    FillTurned(thread, tile.Columns(), tile.ColumnLine(),
               tile.ColumnFactor(shared, buffer),
               [&](int column, int step, Sum* value) {
                 const int32_t at = p.column + column;
                 LoadFour(filter + FilterRow(at) * filters + first + step,
                          at < Columns() ? rest - step : 0, whole, value);
               });
  }

  // The row of the filter that is a column.
  KCONV_HOST_DEVICE int64_t FilterRow(int32_t column) const {
    if (group_channels == all_group_channels) return column;
    const int32_t tap = column / static_cast<int32_t>(group_channels);
    return tap * all_group_channels + skipped_channels +
           (column - tap * group_channels);
  }

  KCONV_HOST_DEVICE void Write(const Place& p, const cuda::Thread& thread,
                               const State& state) const {
    const auto of_group = static_cast<int32_t>(group_channels);
    tile.ForFours(thread, state, [&](int row, int column, const Sum* sums) {
      const int64_t pixel = p.pixel + row;
      const int32_t first = p.column + column, rest = Columns() - first;
      if (pixel >= values.pixels || rest <= 0) return;
      Sum* to = values.data + pixel * values.taps * values.channels +
                p.group * group_channels;
      if (whole_values) {
        const int32_t tap = first / of_group;
        PutFour(sums, to + tap * values.channels + (first - tap * of_group));
        return;
      }
      KCONV_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int32_t tap = (first + j) / of_group;
        if (j < rest) {
          to[tap * values.channels + (first + j - tap * of_group)] = sums[j];
        }
      }
    });
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_VALUES_H_
