// Forward and input gradient on the GPU, as products of matrices that are never
// in memory: rows are places of the image that is written, columns the channels
// of a group, the depth of the sums taps times channels of the image that is
// read. Pixels outside of it are zeros, as in the CPU's gemm.
//
// An input gradient with strides is one such product for each remainder of the
// places modulo the strides, of the taps that those meet.

#ifndef KCONV_ALGORITHMS_GEMM_CUDA_IMAGE_H_
#define KCONV_ALGORITHMS_GEMM_CUDA_IMAGE_H_

#include <cstdint>

#include "algorithms/gemm/cuda_plan.h"
#include "algorithms/gemm/cuda_tile.h"
#include "cuda/finish.h"
#include "cuda/grid_axis.h"
#include "cuda/phases.h"
#include "cuda/words.h"

namespace kconv::gemm {

// kQuads: the image that is read is loaded by four channels, or else one
// element at a time, side by side those of pixels.
template <typename Tile, bool kQuads>
struct CudaImageKernel {
  static constexpr int kMostThreads = Tile::kThreads;
  static constexpr int kLeastBlocks = Tile::kBlocks;
  // Threads that share a pixel; pixels of a thread; fours of depth that it
  // loads of each.
  static constexpr int kSharers =
      kQuads ? 2 : (Tile::kThreads > Tile::kRows ? 2 : 1);
  static constexpr int kPixels = Tile::kRows * kSharers / Tile::kThreads;
  static constexpr int kFours = kCudaDepth / 4 / kSharers;
  static_assert(kPixels * Tile::kThreads == Tile::kRows * kSharers, "");
  // One quad of the filter for each of so many threads.
  static constexpr int kFilterQuads = kCudaDepth * Tile::kColumns / 4;
  static_assert(kFilterQuads <= Tile::kThreads, "");

  // A place in the depth of the sum.
  struct Depth {
    int channel;
    int tap[3];
  };
  struct State {
    typename Tile::Sums sum;
    Depth depth;  // where the next pair begins
  };

  CudaImagePlan plan;
  const void* read;
  const void* filter;  // [taps][c][filter_row]
  const void* bias;    // or null
  Activation activation;
  void* written;

  cuda::Launch Launch() const {
    return {plan.blocks, Tile::kThreads,
            4 * Tile::kFloats + int64_t{sizeof(Table)}};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t block) const {
    return TilesOf(BlockOf(block)) + 2;
  }

  // After the table, multiplies a pair of operands while the next one is
  // loaded.
  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State* state) const {
    float* pairs = static_cast<float*>(shared);
    Table* table = reinterpret_cast<Table*>(pairs + Tile::kFloats);
    int index = thread.index;
    KCONV_FORGET(index);
    if (step == 0) {
      Fill(index, BlockOf(thread.block), table);
      return;
    }
    const int number = static_cast<int>(step) - 1;
    const bool more = number < table->tiles;
    Operands loaded;
    if (more) Load(index, *table, &state->depth, &loaded);
    if (number > 0) {
      Tile::Multiply(pairs + (number - 1) % 2 * Tile::kPair,
                     Tile::PlaceOf(index), state->sum);
    }
    if (more) {
      Store(index, loaded, pairs + number % 2 * Tile::kPair);
    } else {
      Write(index, BlockOf(thread.block), *table, *state);
    }
  }

 private:
  // A row of the product: where tap 0 reads in its image, for the group.
  struct alignas(16) Row {
    uint32_t pixel;
    int at[3];
  };
  // What the threads of a block share.
  struct Table {
    Row row[Tile::kRows];
    int image[Tile::kRows];
    float bias[Tile::kColumns];
    int tiles;         // of the depth
    int taps[3];       // of the phase
    int first_tap;     // of the filter
    int column;        // of the group, the tile's first
    int group_column;  // the group's first
  };
  // What a thread has on its way to a pair.
  struct Operands {
    cuda::Quad read[kPixels][kFours];
    cuda::Quad filter;
  };
  struct Block {
    int row_tile, column_tile, group;
    cuda::Phase phase[3];
  };

  KCONV_HOST_DEVICE Block BlockOf(int64_t number) const {
    int rest = static_cast<int>(number);
    KCONV_FORGET(rest);
    Block b;
    b.column_tile = plan.column_tiles.Split(&rest);
    b.group = plan.groups.Split(&rest);
    b.row_tile = plan.row_tiles.Split(&rest);
    b.phase[2] = plan.axis[2].At(plan.phases_w.Split(&rest));
    b.phase[1] = plan.axis[1].At(plan.phases_h.Split(&rest));
    b.phase[0] = plan.axis[0].At(rest);
    return b;
  }

  KCONV_HOST_DEVICE int TilesOf(const Block& b) const {
    const int depth = b.phase[0].taps * b.phase[1].taps * b.phase[2].taps *
                      plan.read.of_group;
    return (depth + kCudaDepth - 1) / kCudaDepth;
  }

  // Of a thread's p-th pixel, and of its f-th four of the depth.
  KCONV_HOST_DEVICE static int RowOf(int index, int p) {
    return (kQuads ? index / kSharers : index % (Tile::kThreads / kSharers)) +
           p * (Tile::kThreads / kSharers);
  }
  KCONV_HOST_DEVICE static int FourOf(int index, int f) {
    if (kSharers == 1) return f;
    return kQuads ? index % kSharers : index / (Tile::kThreads / kSharers);
  }
  // Of the filter's quad of a thread, its row and its column.
  KCONV_HOST_DEVICE static int FilterRow(int index) {
    return index / (Tile::kColumns / 4);
  }
  KCONV_HOST_DEVICE static int FilterColumn(int index) {
    return index % (Tile::kColumns / 4) * 4;
  }

  KCONV_HOST_DEVICE void Fill(int index, const Block& b, Table* to) const {
    for (int i = index; i < Tile::kRows; i += Tile::kThreads) {
      const int number = b.row_tile * Tile::kRows + i;
      int grid[3];
      to->image[i] = plan.grid.At(number, grid);
      Row row;
      KCONV_UNROLL
      for (int dim = 0; dim < 3; ++dim) {
        row.at[dim] = b.phase[dim].from + plan.axis[dim].stride * grid[dim];
      }
      // Rows past the last one are outside of every image.
      if (number >= plan.grid.places) row.at[0] = -(1 << 30);
      row.pixel = Number(row.at[0], row.at[1], row.at[2]) *
                      static_cast<uint32_t>(plan.read.pixel) +
                  static_cast<uint32_t>(b.group * plan.read.of_group) *
                      static_cast<uint32_t>(plan.read.channel);
      to->row[i] = row;
    }
    const int column = b.column_tile * Tile::kColumns;
    for (int i = index; i < Tile::kColumns; i += Tile::kThreads) {
      to->bias[i] = 0;
      if (bias != nullptr && column + i < plan.written.of_group) {
        const int channel = b.group * plan.written.of_group + column + i;
        to->bias[i] = cuda::WidenBits(
            cuda::LoadBits(bias, channel, plan.type.half), plan.type.dtype);
      }
    }
    if (index > 0) return;
    to->tiles = TilesOf(b);
    KCONV_UNROLL
    for (int dim = 0; dim < 3; ++dim) to->taps[dim] = b.phase[dim].taps;
    to->first_tap =
        (b.phase[0].tap * plan.kernel_h + b.phase[1].tap) * plan.kernel_w +
        b.phase[2].tap;
    to->column = column;
    to->group_column = b.group * plan.written.of_group;
  }

  // Modulo 2^32, which is exact for places of the image.
  KCONV_HOST_DEVICE uint32_t Number(int d, int h, int w) const {
    return (static_cast<uint32_t>(d) *
                static_cast<uint32_t>(plan.axis[1].read) +
            static_cast<uint32_t>(h)) *
               static_cast<uint32_t>(plan.axis[2].read) +
           static_cast<uint32_t>(w);
  }

  KCONV_HOST_DEVICE void Advance(int by, const int (&taps)[3],
                                 Depth* depth) const {
    depth->channel += by;
    while (depth->channel >= plan.read.of_group) {
      depth->channel -= plan.read.of_group;
      if (++depth->tap[2] < taps[2]) continue;
      depth->tap[2] = 0;
      if (++depth->tap[1] < taps[1]) continue;
      depth->tap[1] = 0;
      ++depth->tap[0];
    }
  }

  KCONV_HOST_DEVICE void Load(int index, const Table& table, Depth* begin,
                              Operands* to) const {
    const int (&taps)[3] = table.taps;
    Depth depth = *begin;
    Advance(FourOf(index, 0) * 4, taps, &depth);
    Row row[kPixels];
    int64_t image[kPixels];
    if (!kQuads) {
      KCONV_UNROLL
      for (int p = 0; p < kPixels; ++p) FindPixel(index, table, p, row, image);
    }
    KCONV_UNROLL
    for (int f = 0; f < kFours; ++f) {
      KCONV_UNROLL
      for (int i = 0; i < (kQuads ? 1 : 4); ++i) {
        int moved[3];
        KCONV_UNROLL
        for (int dim = 0; dim < 3; ++dim) {
          moved[dim] = plan.axis[dim].step * depth.tap[dim];
        }
        const uint32_t offset = Number(moved[0], moved[1], moved[2]) *
                                    static_cast<uint32_t>(plan.read.pixel) +
                                static_cast<uint32_t>(depth.channel) *
                                    static_cast<uint32_t>(plan.read.channel);
        const bool is_tap = depth.tap[0] < taps[0];
        KCONV_UNROLL
        for (int p = 0; p < kPixels; ++p) {
          if (kQuads) FindPixel(index, table, p, row, image);
          bool exists = is_tap;
          KCONV_UNROLL
          for (int dim = 0; dim < 3; ++dim) {
            exists =
                exists && static_cast<uint32_t>(row[p].at[dim] + moved[dim]) <
                              static_cast<uint32_t>(plan.axis[dim].read);
          }
          const int64_t at = image[p] + (row[p].pixel + offset);
          cuda::Quad& quad = to->read[p][f];
          if (kQuads) {
            quad = cuda::Quad{};
            if (exists) cuda::LoadQuad(read, at, plan.type.half, &quad);
          } else {
            quad.word[i] =
                exists ? cuda::LoadBits(read, at, plan.type.half) : 0;
          }
        }
        if (!kQuads) Advance(1, taps, &depth);
      }
    }
    depth = *begin;
    Advance(kCudaDepth, taps, begin);
    if (index < kFilterQuads) LoadFilter(index, table, depth, &to->filter);
  }

  KCONV_HOST_DEVICE void FindPixel(int index, const Table& table, int p,
                                   Row* row, int64_t* image) const {
    row[p] = table.row[RowOf(index, p)];
    image[p] = table.image[RowOf(index, p)] * plan.read.image;
  }

  // From the place in the depth on where a pair begins.
  KCONV_HOST_DEVICE void LoadFilter(int index, const Table& table, Depth depth,
                                    cuda::Quad* to) const {
    *to = cuda::Quad{};
    const int column = table.column + FilterColumn(index);
    const int left = plan.written.of_group - column;
    Advance(FilterRow(index), table.taps, &depth);
    if (left <= 0 || depth.tap[0] >= table.taps[0]) return;
    const int tap = table.first_tap +
                    (plan.axis[0].tap_step * depth.tap[0] * plan.kernel_h +
                     plan.axis[1].tap_step * depth.tap[1]) *
                        plan.kernel_w +
                    plan.axis[2].tap_step * depth.tap[2];
    const int at =
        (tap * plan.read.of_group + depth.channel) * plan.filter_row +
        table.group_column + column;
    if (plan.filter_quads) {
      cuda::LoadQuad(filter, at, plan.type.half, to);
      return;
    }
    KCONV_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (i >= left) break;
      const uint32_t bits = cuda::LoadBits(filter, at + i, plan.type.half);
      if (plan.type.half) {
        to->word[i / 2] |= bits << (16 * (i % 2));
      } else {
        to->word[i] = bits;
      }
    }
  }

  KCONV_HOST_DEVICE void Store(int index, const Operands& from,
                               float* pair) const {
    KCONV_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      KCONV_UNROLL
      for (int f = 0; f < kFours; ++f) {
        float* to =
            pair + 4 * FourOf(index, f) * Tile::kLeftPitch + RowOf(index, p);
        KCONV_UNROLL
        for (int i = 0; i < 4; ++i) {
          const cuda::Quad& quad = from.read[p][f];
          to[i * Tile::kLeftPitch] =
              kQuads ? cuda::WidenOf(quad, i, plan.type)
                     : cuda::WidenBits(quad.word[i], plan.type.dtype);
        }
      }
    }
    if (index < kFilterQuads) {
      float* to = pair + Tile::kLeft + FilterRow(index) * Tile::kRightPitch +
                  FilterColumn(index);
      KCONV_UNROLL
      for (int i = 0; i < 4; ++i) {
        to[i] = cuda::WidenOf(from.filter, i, plan.type);
      }
    }
  }

  KCONV_HOST_DEVICE void Write(int index, const Block& b, const Table& table,
                               const State& s) const {
    const typename Tile::Place place = Tile::PlaceOf(index);
    const bool rows = plan.written_rows;
    const int left = plan.written.of_group - table.column;
    const int64_t first =
        int64_t{table.group_column + table.column} * plan.written.channel;
    // By fours, along the rows or along the columns of each 4 x 4 sums.
    KCONV_UNROLL
    for (int i = 0; i < Tile::kThreadRows; ++i) {
      const int64_t at = WrittenAt(
          b, b.row_tile * Tile::kRows + place.Row(rows ? i / 4 * 4 : i));
      if (at < 0) continue;
      KCONV_UNROLL
      for (int j = 0; j < Tile::kThreadColumns; j += 4) {
        const int column = place.Column(j) + (rows ? i % 4 : 0);
        if (column >= left) continue;
        float value[4];
        KCONV_UNROLL
        for (int k = 0; k < 4; ++k) {
          const float sum =
              rows ? s.sum[i / 4 * 4 + k][j + i % 4] : s.sum[i][j + k];
          value[k] = cuda::Activate(
              sum + table.bias[rows ? column : column + k], activation);
        }
        const int64_t to = first + at + int64_t{column} * plan.written.channel;
        if (rows || plan.written_quads) {
          cuda::StoreQuad(written, to, plan.type, value);
          continue;
        }
        KCONV_UNROLL
        for (int k = 0; k < 4; ++k) {
          if (column + k >= left) break;
          cuda::StoreBits(written, to + int64_t{k} * plan.written.channel,
                          plan.type.half,
                          cuda::NarrowBits(value[k], plan.type.dtype));
        }
      }
    }
  }

  // Where a row's channel 0 lies; -1 where there is no such place.
  KCONV_HOST_DEVICE int64_t WrittenAt(const Block& b, int row) const {
    if (row >= plan.grid.places) return -1;
    int grid[3];
    const int image = plan.grid.At(row, grid);
    int number = 0;
    KCONV_UNROLL
    for (int dim = 0; dim < 3; ++dim) {
      const int place = b.phase[dim].first + plan.axis[dim].pitch * grid[dim];
      if (place >= plan.axis[dim].written) return -1;
      number = number * plan.axis[dim].written + place;
    }
    return image * plan.written.image + int64_t{number} * plan.written.pixel;
  }
};

// to[tap][o][channel] = filter[tap][channel of the group][o of all], which is
// the filter of the input gradient.
struct CudaTransposeFilter {
  using State = cuda::NoState;
  static constexpr int kMostThreads = 256;

  cuda::Type type;
  cuda::Divisor in_channels, of_group, group_out;
  int in_of_group, out_of_group, out_channels, elements;
  const void* filter;
  void* to;

  cuda::Launch Launch() const {
    return {(elements + int64_t{kMostThreads} - 1) / kMostThreads, kMostThreads,
            0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t element = thread.block * thread.count + thread.index;
    if (element >= elements) return;
    int rest = static_cast<int>(element);
    const int channel = in_channels.Split(&rest);
    const int o = group_out.Split(&rest);
    int group = channel;
    const int c = of_group.Split(&group);
    cuda::StoreBits(
        to, element, type.half,
        cuda::LoadBits(filter,
                       (int64_t{rest} * in_of_group + c) * out_channels +
                           group * out_of_group + o,
                       type.half));
  }
};

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_CUDA_IMAGE_H_
