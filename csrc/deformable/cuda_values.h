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
  int32_t first_pixel, pixels;
  int32_t first_channel, channels;
  int32_t taps;

  // Of pixel x taps + tap, pixels numbered through the batch.
  KCONV_HOST_DEVICE Sum* At(int32_t row, int32_t channel) const {
    return data + int64_t{row - first_pixel * taps} * channels +
           (channel - first_channel);
  }
};

// A tile of output pixels x columns, taps x channels of a group: those of its
// channels that are in the slice.
template <typename Element>
struct CudaValueGradient {
  using Sum = SumType<Element>;
  using State = CudaSums<Sum>;
  static constexpr int kMostThreads = kCudaTileThreads<Sum>;

  CudaTile<Sum> tile;
  CudaValues<Sum> values;
  int32_t groups, group_channels;                             // in the slice
  int32_t first_group, all_group_channels, skipped_channels;  // of a group
  int32_t row_tiles, column_tiles;
  int32_t filters, group_filters;
  bool whole;         // four filters are of one group, and aligned
  bool whole_values;  // four columns are of one tap, and aligned
  const Element* upstream;
  const Element* filter;

  cuda::Launch Launch() const {
    return {int64_t{groups} * row_tiles * column_tiles, tile.Threads(),
            tile.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const {
    return (group_filters + kCudaDepth - 1) / kCudaDepth + 1;
  }

  KCONV_HOST_DEVICE void Step(int64_t number, const cuda::Thread& thread,
                              void* shared, State* state) const {
    const Place place = PlaceOf(thread.block);
    const auto step = static_cast<int32_t>(number);
    const int32_t depth = step * kCudaDepth;
    if (depth < group_filters) Fill(place, depth, step, thread, shared);
    if (step > 0) tile.Multiply(thread, shared, step - 1, state);
    if (depth >= group_filters) Write(place, thread, *state);
  }

 private:
  // What a block computes: the first of each, the group of the slice.
  struct Place {
    int32_t group, pixel, column;
  };

  KCONV_HOST_DEVICE Place PlaceOf(int64_t number) const {
    auto block = static_cast<int32_t>(number);
    Place p;
    p.column = block % column_tiles * tile.Columns();
    block /= column_tiles;
    p.pixel = block % row_tiles * tile.Rows();
    p.group = block / row_tiles;
    return p;
  }

  KCONV_HOST_DEVICE int32_t Columns() const {
    return values.taps * group_channels;
  }

  KCONV_HOST_DEVICE void Fill(const Place& p, int32_t depth, int buffer,
                              const cuda::Thread& thread, void* shared) const {
    const int32_t first = (first_group + p.group) * group_filters + depth;
    const int32_t rest = group_filters - depth;
    const Element* rows =
        upstream + int64_t{values.first_pixel + p.pixel} * filters + first;
    FillTurned(thread, tile.Rows(), tile.RowFactor(shared, buffer),
               [&](int row, int step, Sum* value) {
                 LoadFour(rows + int64_t{row} * filters + step,
                          p.pixel + row < values.pixels ? rest - step : 0,
                          whole, value);
               });
    FillTurned(thread, tile.Columns(), tile.ColumnFactor(shared, buffer),
               [&](int column, int step, Sum* value) {
                 const int32_t at = p.column + column;
                 LoadFour(
                     filter + int64_t{FilterRow(at)} * filters + first + step,
                     at < Columns() ? rest - step : 0, whole, value);
               });
  }

  // The row of the filter that is a column.
  KCONV_HOST_DEVICE int32_t FilterRow(int32_t column) const {
    if (group_channels == all_group_channels) return column;
    const int32_t tap = column / group_channels;
    return tap * all_group_channels + skipped_channels +
           (column - tap * group_channels);
  }

  KCONV_HOST_DEVICE void Write(const Place& p, const cuda::Thread& thread,
                               const State& state) const {
    constexpr int kSide = CudaSums<Sum>::kSide;
    if (whole_values) {
      KCONV_UNROLL
      for (int j = 0; j < kSide; j += 4) WriteColumns<4>(p, thread, j, state);
    } else {
      KCONV_UNROLL
      for (int j = 0; j < kSide; ++j) WriteColumns<1>(p, thread, j, state);
    }
  }

  // kCount of them side by side: number `j` and more of a thread's.
  template <int kCount>
  KCONV_HOST_DEVICE void WriteColumns(const Place& p,
                                      const cuda::Thread& thread, int j,
                                      const State& state) const {
    constexpr int kSide = CudaSums<Sum>::kSide;
    const int32_t column = Opaque(p.column + tile.ColumnAt(thread, j));
    if (column >= Columns()) return;
    const int64_t of_pixel = int64_t{values.taps} * values.channels;
    KCONV_UNROLL
    for (int run = 0; run < kSide; run += 4) {
      const int32_t pixel = Opaque(p.pixel + tile.RowAt(thread, run));
      Sum* to = values.data + pixel * of_pixel + ColumnAt(p.group, column);
      KCONV_UNROLL
      for (int i = 0; i < 4; ++i, to += of_pixel) {
        if (pixel + i >= values.pixels) break;
        if constexpr (kCount == 4) {
          PutFour(&state.sum[run + i][j], to);
        } else {
          *to = state.sum[run + i][j];
        }
      }
    }
  }

  // A column of a group of the slice among all of a pixel.
  KCONV_HOST_DEVICE int32_t ColumnAt(int32_t group, int32_t column) const {
    const int32_t tap = column / group_channels;
    return tap * values.channels + group * group_channels +
           (column - tap * group_channels);
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_VALUES_H_
