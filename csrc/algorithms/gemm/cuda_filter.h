// The filter gradient on the GPU, as a product of matrices that are never in
// memory: rows are taps times channels of the input, columns the output's
// channels of a group, the depth of the sums places of the output. These are
// cut into slices, whose sums cuda/slices.h adds.

#ifndef KCONV_ALGORITHMS_GEMM_CUDA_FILTER_H_
#define KCONV_ALGORITHMS_GEMM_CUDA_FILTER_H_

#include <cstdint>

#include "algorithms/gemm/cuda_plan.h"
#include "algorithms/gemm/cuda_tile.h"
#include "cuda/phases.h"
#include "cuda/words.h"

namespace kconv::gemm {

// kQuads: both images are loaded by four channels, or else one element at a
// time, side by side those of places.
template <typename Tile, bool kQuads>
struct CudaFilterKernel {
  static constexpr int kMostThreads = Tile::kThreads;
  static constexpr int kLeastBlocks = Tile::kBlocks;

  struct State {
    typename Tile::Sums sum;
  };

  CudaFilterPlan plan;
  const void* input;
  const void* output;
  float* partials;  // [slice][row][filter_row], or null where there is one
  void* filter;     // then

  cuda::Launch Launch() const {
    return {plan.blocks, Tile::kThreads,
            4 * Tile::kFloats + int64_t{sizeof(Row)} * Tile::kRows};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t block) const {
    const Block b = BlockOf(block);
    return (b.places + kCudaDepth - 1) / kCudaDepth + 2;
  }

  // After the table of rows, multiplies a pair of operands while the next one
  // is loaded.
  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State* state) const {
    const Block b = BlockOf(thread.block);
    int index = thread.index;
    KCONV_FORGET(index);
    float* pairs = static_cast<float*>(shared);
    Row* rows = reinterpret_cast<Row*>(pairs + Tile::kFloats);
    if (step == 0) {
      for (int i = index; i < Tile::kRows; i += Tile::kThreads) {
        rows[i] = RowOf(b.row_tile * Tile::kRows + i);
      }
      return;
    }
    const int number = static_cast<int>(step) - 1;
    const bool more = number * kCudaDepth < b.places;
    Operands loaded;
    if (more) Load(index, b, number * kCudaDepth, rows, &loaded);
    if (number > 0) {
      Tile::Multiply(pairs + (number - 1) % 2 * Tile::kPair,
                     Tile::PlaceOf(thread.index), state->sum);
    }
    if (more) {
      Store(index, loaded, pairs + number % 2 * Tile::kPair);
    } else {
      Write(index, b, *state);
    }
  }

 private:
  // A row of the product: where its tap and channel are, from an output's first
  // tap and a group's first channel on.
  struct alignas(16) Row {
    uint32_t offset;
    int at[3];
  };

  // Loads of a thread: quads along the rows or columns of one place of the
  // depth, or fours of single elements at one place.
  static constexpr int Fours(int width) {
    return (width * kCudaDepth / 4 + Tile::kThreads - 1) / Tile::kThreads;
  }
  static constexpr int kLeftFours = Fours(Tile::kRows);
  static constexpr int kRightFours = Fours(Tile::kColumns);
  struct Operands {
    cuda::Quad left[kLeftFours], right[kRightFours];
  };

  struct Block {
    int row_tile, column_tile, group, slice;
    int first, places;
  };
  KCONV_HOST_DEVICE Block BlockOf(int64_t number) const {
    int rest = static_cast<int>(number);
    KCONV_FORGET(rest);
    Block b;
    b.column_tile = plan.column_tiles.Split(&rest);
    b.group = plan.groups.Split(&rest);
    b.row_tile = plan.row_tiles.Split(&rest);
    b.slice = rest;
    b.first = static_cast<int>(b.slice * plan.slices.size);
    const int left = plan.grid.places - b.first;
    b.places =
        left < plan.slices.size ? left : static_cast<int>(plan.slices.size);
    return b;
  }

  KCONV_HOST_DEVICE uint32_t Number(int d, int h, int w) const {
    return (static_cast<uint32_t>(d) *
                static_cast<uint32_t>(plan.axis[1].read) +
            static_cast<uint32_t>(h)) *
               static_cast<uint32_t>(plan.axis[2].read) +
           static_cast<uint32_t>(w);
  }

  KCONV_HOST_DEVICE Row RowOf(int number) const {
    Row row = {};
    if (number >= plan.rows) {
      row.at[0] = -(1 << 30);  // outside of every image
      return row;
    }
    const int channel = plan.channels.Split(&number);
    row.at[2] = plan.kernel_w.Split(&number) * plan.axis[2].step;
    row.at[1] = plan.kernel_h.Split(&number) * plan.axis[1].step;
    row.at[0] = number * plan.axis[0].step;
    row.offset = Number(row.at[0], row.at[1], row.at[2]) *
                     static_cast<uint32_t>(plan.input.pixel) +
                 static_cast<uint32_t>(channel) *
                     static_cast<uint32_t>(plan.input.channel);
    return row;
  }

  // A place of the depth in both images.
  struct Meeting {
    bool exists;
    int64_t input;  // of image and group
    uint32_t pixel;
    int at[3];  // of tap 0
    int64_t output;
  };
  KCONV_HOST_DEVICE Meeting MeetingOf(const Block& b, int place) const {
    Meeting m;
    m.exists = place < b.places;
    int grid[3];
    const int image = plan.grid.At(b.first + place, grid);
    KCONV_UNROLL
    for (int dim = 0; dim < 3; ++dim) {
      m.at[dim] = grid[dim] * plan.axis[dim].stride - plan.axis[dim].pad;
    }
    m.pixel = Number(m.at[0], m.at[1], m.at[2]) *
              static_cast<uint32_t>(plan.input.pixel);
    m.input = image * plan.input.image +
              int64_t{b.group} * plan.input.of_group * plan.input.channel;
    const int number =
        (grid[0] * plan.grid.size[1] + grid[1]) * plan.grid.size[2] + grid[2];
    m.output = image * plan.output.image + int64_t{number} * plan.output.pixel +
               int64_t{b.group} * plan.output.of_group * plan.output.channel;
    return m;
  }

  // Where a four of an operand of some width lies: its place in the depth, and
  // its first row or column; single elements are kApart of them apart.
  static constexpr int kApart = Tile::kThreads / kCudaDepth;
  template <int kWidth>
  KCONV_HOST_DEVICE static int PlaceOf(int index, int i) {
    return kQuads ? (index + i * Tile::kThreads) / (kWidth / 4)
                  : index % kCudaDepth;
  }
  template <int kWidth>
  KCONV_HOST_DEVICE static int AcrossOf(int index, int i) {
    return kQuads ? (index + i * Tile::kThreads) % (kWidth / 4) * 4
                  : index / kCudaDepth + 4 * i * kApart;
  }
  // Whether a thread has an i-th four: the last ones of a narrow operand.
  template <int kWidth>
  KCONV_HOST_DEVICE static bool Has(int index, int i) {
    return kQuads ? index + i * Tile::kThreads < kWidth * kCudaDepth / 4 : true;
  }

  KCONV_HOST_DEVICE void Load(int index, const Block& b, int first,
                              const Row* rows, Operands* to) const {
    Meeting m;
    if (!kQuads) m = MeetingOf(b, first + index % kCudaDepth);
    KCONV_UNROLL
    for (int i = 0; i < kLeftFours; ++i) {
      to->left[i] = cuda::Quad{};
      if (!Has<Tile::kRows>(index, i)) break;
      if (kQuads) m = MeetingOf(b, first + PlaceOf<Tile::kRows>(index, i));
      const int across = AcrossOf<Tile::kRows>(index, i);
      KCONV_UNROLL
      for (int j = 0; j < (kQuads ? 1 : 4); ++j) {
        const int row_at = across + j * kApart;
        if (!kQuads && row_at >= Tile::kRows) break;
        const Row row = rows[row_at];
        bool exists = m.exists;
        KCONV_UNROLL
        for (int dim = 0; dim < 3; ++dim) {
          exists = exists && static_cast<uint32_t>(m.at[dim] + row.at[dim]) <
                                 static_cast<uint32_t>(plan.axis[dim].read);
        }
        if (!exists) continue;
        const int64_t at = m.input + (m.pixel + row.offset);
        if (kQuads) {
          cuda::LoadQuad(input, at, plan.type.half, &to->left[i]);
        } else {
          to->left[i].word[j] = cuda::LoadBits(input, at, plan.type.half);
        }
      }
    }
    KCONV_UNROLL
    for (int i = 0; i < kRightFours; ++i) {
      to->right[i] = cuda::Quad{};
      if (!Has<Tile::kColumns>(index, i)) break;
      if (kQuads) m = MeetingOf(b, first + PlaceOf<Tile::kColumns>(index, i));
      const int across = AcrossOf<Tile::kColumns>(index, i);
      KCONV_UNROLL
      for (int j = 0; j < (kQuads ? 1 : 4); ++j) {
        const int column_at = across + j * kApart;
        if (!kQuads && column_at >= Tile::kColumns) break;
        const int column = b.column_tile * Tile::kColumns + column_at;
        if (!m.exists || column >= plan.output.of_group) continue;
        const int64_t at = m.output + int64_t{column} * plan.output.channel;
        if (kQuads) {
          cuda::LoadQuad(output, at, plan.type.half, &to->right[i]);
        } else {
          to->right[i].word[j] = cuda::LoadBits(output, at, plan.type.half);
        }
      }
    }
  }

  template <int kWidth, int kPitch>
  KCONV_HOST_DEVICE void StoreFour(int index, int i, const cuda::Quad& from,
                                   float* to) const {
    if (!Has<kWidth>(index, i)) return;
    to += PlaceOf<kWidth>(index, i) * kPitch;
    const int across = AcrossOf<kWidth>(index, i);
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) {
      if (kQuads) {
        to[across + j] = cuda::WidenOf(from, j, plan.type);
      } else if (across + j * kApart < kWidth) {
        to[across + j * kApart] =
            cuda::WidenBits(from.word[j], plan.type.dtype);
      }
    }
  }

  KCONV_HOST_DEVICE void Store(int index, const Operands& from,
                               float* pair) const {
    KCONV_UNROLL
    for (int i = 0; i < kLeftFours; ++i) {
      StoreFour<Tile::kRows, Tile::kLeftPitch>(index, i, from.left[i], pair);
    }
    KCONV_UNROLL
    for (int i = 0; i < kRightFours; ++i) {
      StoreFour<Tile::kColumns, Tile::kRightPitch>(index, i, from.right[i],
                                                   pair + Tile::kLeft);
    }
  }

  KCONV_HOST_DEVICE void Write(int index, const Block& b,
                               const State& s) const {
    const typename Tile::Place place = Tile::PlaceOf(index);
    const int first_row = b.row_tile * Tile::kRows;
    const int first_column = b.column_tile * Tile::kColumns;
    const int64_t slice = int64_t{b.slice} * plan.rows * plan.filter_row;
    const int64_t group = b.group * plan.output.of_group;
    KCONV_UNROLL
    for (int i = 0; i < Tile::kThreadRows; ++i) {
      const int row = first_row + place.Row(i);
      if (row >= plan.rows) break;
      const int64_t at = slice + int64_t{row} * plan.filter_row + group;
      KCONV_UNROLL
      for (int j = 0; j < Tile::kThreadColumns; j += 4) {
        const int column = first_column + place.Column(j);
        const int left = plan.output.of_group - column;
        if (left <= 0) break;
        const float (&sum)[Tile::kThreadColumns] = s.sum[i];
        if (partials != nullptr && plan.quads) {
          cuda::StoreQuad(partials, at + column, cuda::Type(), sum + j);
          continue;
        }
        KCONV_UNROLL
        for (int k = 0; k < 4; ++k) {
          if (k >= left) break;
          if (partials != nullptr) {
            partials[at + column + k] = sum[j + k];
          } else {
            cuda::StoreBits(filter, at + column + k, plan.type.half,
                            cuda::NarrowBits(sum[j + k], plan.type.dtype));
          }
        }
      }
    }
  }
};

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_CUDA_FILTER_H_
