// The filter gradient of narrow groups on the GPU, in two stages and without
// atomics.
//
// A block takes some groups and a slice of the tiles. For each tile it loads
// the gradient and the pixels that the taps meet; a thread holds the sums of
// four channels of the input times four of the output for taps side by side,
// over some places of the tile, from tile to tile. At the end the sums of the
// same taps are added in shared memory, and written beside those of the other
// slices, for cuda/slices.h to add.

#ifndef KCONV_ALGORITHMS_GROUPED_CUDA_FILTER_H_
#define KCONV_ALGORITHMS_GROUPED_CUDA_FILTER_H_

#include <cstdint>

#include "algorithms/grouped/cuda_box.h"
#include "algorithms/grouped/cuda_plan.h"
#include "cuda/phases.h"
#include "cuda/words.h"

namespace kconv::grouped {

template <int kTaps>
struct CudaFilterKernel {
  static constexpr int kMostThreads = kCudaThreads;
  static constexpr int kLeastBlocks = 2;
  struct State {
    float sum[kTaps][4][4];
  };

  CudaFilterPlan plan;
  const void* input;
  const void* output;
  float* partials;  // [slice][filter]

  cuda::Launch Launch() const {
    return {plan.blocks, plan.Threads(), plan.SharedBytes()};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t block) const {
    return 2 * int64_t{BlockOf(static_cast<int>(block)).tiles} + 2;
  }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State* state) const {
    int number = static_cast<int>(thread.block);
    int index = thread.index;
    KCONV_FORGET(number);
    KCONV_FORGET(index);
    const Block b = BlockOf(number);
    auto* box = static_cast<CudaFour*>(shared);
    auto* gradient = box + int64_t{plan.box.plane} * plan.box.by_planes.divisor;
    auto* sums = static_cast<float*>(shared);
    if (step < 2 * int64_t{b.tiles}) {
      const Tile tile = TileOf(b, static_cast<int>(step / 2));
      if (step % 2 == 0) {
        LoadCudaBox(input, plan.type, plan.input, tile.input, plan.box, index,
                    thread.count, box);
        LoadCudaBox(output, plan.type, plan.output, tile.output, plan.gradient,
                    index, thread.count, gradient);
      } else {
        Sum(b, tile, index, box, gradient, state);
      }
    } else if (step == 2 * int64_t{b.tiles}) {
      Keep(index, *state, sums);
    } else {
      Write(b, index, thread.count, sums);
    }
  }

 private:
  struct Block {
    int group, groups;  // the first one, and how many there are
    int unit;           // the first one
    int slice, first_tile, tiles;
  };
  KCONV_HOST_DEVICE Block BlockOf(int rest) const {
    Block b;
    b.group = plan.chunks.Split(&rest) * plan.of_block;
    const int left = plan.groups - b.group;
    b.groups = left < plan.of_block ? left : plan.of_block;
    b.unit = plan.unit_chunks.Split(&rest) * plan.units_of_block;
    b.slice = rest;
    b.first_tile = static_cast<int>(b.slice * plan.slices.size);
    const int64_t tiles = plan.slices.total - b.first_tile;
    b.tiles =
        static_cast<int>(tiles < plan.slices.size ? tiles : plan.slices.size);
    return b;
  }

  struct Tile {
    CudaCorner input, output;
    int images, rows, columns;  // that there are
  };
  KCONV_HOST_DEVICE Tile TileOf(const Block& b, int number) const {
    const CudaTiling::Place corner =
        plan.tiling.CornerOf(b.first_tile + number);
    const int image = corner.image, y = corner.y, x = corner.x;
    Tile tile;
    tile.output = {image, b.group, b.groups, y, x};
    tile.input = {image, b.group, b.groups, y * plan.y.stride - plan.y.pad,
                  x * plan.x.stride - plan.x.pad};
    const int images = plan.output.batch - image;
    tile.images = images < plan.tiling.images ? images : plan.tiling.images;
    const int rows = plan.output.height - y, columns = plan.output.width - x;
    tile.rows = rows < plan.tiling.rows ? rows : plan.tiling.rows;
    tile.columns =
        columns < plan.tiling.columns ? columns : plan.tiling.columns;
    return tile;
  }

  // What a unit sums: kTaps taps of a row from tap_x on, and four channels of
  // each image.
  struct Unit {
    int group, four_in, four_out, tap_y, tap_x;
  };
  KCONV_HOST_DEVICE Unit UnitOf(int number) const {
    Unit u;
    u.four_out = plan.fours_out.Split(&number);
    u.tap_x = plan.taps_x.Split(&number) * kTaps;
    u.tap_y = plan.kernel_y.Split(&number);
    u.four_in = plan.fours_in.Split(&number);
    u.group = number;
    return u;
  }

  // Of the outputs that there are: a zero in place of one would make a NaN of
  // an infinite pixel that no tap of the unit meets.
  KCONV_HOST_DEVICE void Sum(const Block& b, const Tile& tile, int index,
                             const CudaFour* box, const CudaFour* gradient,
                             State* s) const {
    const int number = b.unit + index % plan.units_of_block;
    const Unit u = UnitOf(number);
    if (number >= plan.units || u.group >= b.groups) return;
    box += (u.group * plan.box.fours + u.four_in) * plan.box.plane +
           u.tap_y * plan.y.step * plan.box.columns + u.tap_x * plan.x.step;
    gradient +=
        (u.group * plan.gradient.fours + u.four_out) * plan.gradient.plane;
    // Of the last image, the rows that there are.
    const int places = (((tile.images - 1) << plan.tiling.row_bits) + tile.rows)
                       << plan.tiling.column_bits;
    for (int place = index / plan.units_of_block; place < places;
         place += plan.parts) {
      const CudaTiling::Place at = plan.tiling.PlaceOf(place);
      if (at.y >= tile.rows || at.x >= tile.columns) continue;
      const CudaFour g = gradient[place];
      const CudaFour* from =
          box +
          (at.image * plan.box.rows + at.y * plan.y.stride) * plan.box.columns +
          at.x * plan.x.stride;
      KCONV_UNROLL
      for (int t = 0; t < kTaps; ++t) {
        const CudaFour x = from[t * plan.x.step];
        KCONV_UNROLL
        for (int c = 0; c < 4; ++c) {
          KCONV_UNROLL
          for (int n = 0; n < 4; ++n) {
            s->sum[t][c][n] += x.value[c] * g.value[n];
          }
        }
      }
    }
  }

  KCONV_HOST_DEVICE void Keep(int index, const State& s, float* sums) const {
    sums += index * plan.Sums();
    KCONV_UNROLL
    for (int t = 0; t < kTaps; ++t) {
      KCONV_UNROLL
      for (int c = 0; c < 4; ++c) {
        KCONV_UNROLL
        for (int n = 0; n < 4; ++n) sums[(t * 4 + c) * 4 + n] = s.sum[t][c][n];
      }
    }
  }

  // Adds the parts, always in the same order.
  KCONV_HOST_DEVICE void Write(const Block& b, int index, int threads,
                               const float* sums) const {
    const int64_t elements = int64_t{plan.y.kernel} * plan.x.kernel *
                             plan.input.of_group * plan.filter_row;
    constexpr int kOfUnit = 16 * kTaps;
    for (int i = index; i < plan.units_of_block * kOfUnit; i += threads) {
      const int unit = i / kOfUnit, of_unit = i % kOfUnit;
      const Unit u = UnitOf(b.unit + unit);
      const int tap_x = u.tap_x + of_unit / 16;
      const int c = u.four_in * 4 + of_unit / 4 % 4;
      const int n = u.four_out * 4 + of_unit % 4;
      if (b.unit + unit >= plan.units || u.group >= b.groups ||
          tap_x >= plan.x.kernel || c >= plan.input.of_group ||
          n >= plan.output.of_group) {
        continue;
      }
      float sum = 0;
      for (int part = 0; part < plan.parts; ++part) {
        sum +=
            sums[(part * plan.units_of_block + unit) * plan.Sums() + of_unit];
      }
      const int64_t tap = int64_t{u.tap_y} * plan.x.kernel + tap_x;
      partials[b.slice * elements +
               (tap * plan.input.of_group + c) * plan.filter_row +
               (b.group + u.group) * plan.output.of_group + n] = sum;
    }
  }
};

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_CUDA_FILTER_H_
