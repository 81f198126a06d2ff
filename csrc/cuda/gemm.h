// Many products of matrices at a time, in strict float32.
//
// A block of threads takes kRows x kColumns sums, 8 x 8 of them a thread. While
// it multiplies one part of the depth, the next one is on its way to shared
// memory.

#ifndef KCONV_CUDA_GEMM_H_
#define KCONV_CUDA_GEMM_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "cuda/tile.h"
#include "split.h"

namespace kconv::cuda {

// c[s][n] = a[n]^T b[n] of the depth of slice s, for each n < batch; or added
// to what is there.
//
//   a [depth][rows]   b [depth][columns]   c [rows][columns]
//
// From row to row there are multiples of four floats, as many as make the rows
// whole: elements behind the last of a row are read, and written, but change no
// other sum. Pointers are aligned to 16 bytes.
struct Gemm {
  const float* a;
  const float* b;
  float* c;
  int64_t batch, rows, columns, depth;
  int64_t a_row, b_row, c_row;        // floats from row to row
  int64_t a_batch, b_batch, c_batch;  // ... from product to product
  int64_t slices = 1, slice_depth = 0, c_slice = 0;
  bool add = false;
};

template <int kRows, int kColumns>
struct GemmKernel {
  static constexpr int kDepth = 16;  // of a step
  static constexpr int kMostThreads = kRows * kColumns / 64;
  static constexpr int kPart = kDepth * (kRows + kColumns);  // floats of a step

  struct State {
    float sum[8][8];
    const float* a;  // what the thread copies next
    const float* b;
    float* c;           // where the block begins ...
    int rows, columns;  // ... and how much there is of it
    int64_t depth;
  };

  Gemm p;

  cuda::Launch Launch() const {
    return {CeilDivide(p.rows, kRows) * CeilDivide(p.columns, kColumns) *
                p.batch * p.slices,
            kMostThreads, 2 * kPart * 4};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t block) const {
    return PartsOf(DepthOf(SliceOf(block))) + 1;
  }

  KCONV_HOST_DEVICE void Step(int64_t step, const Thread& thread, void* shared,
                              State* state) const {
    float* parts = static_cast<float*>(shared);
    const int index = Afresh(thread.index);
    if (step == 0) Begin(thread.block, index, state);
    const int64_t count = PartsOf(state->depth);
    if (step < count) {
      Load(state->depth - step * kDepth, index, state,
           parts + step % 2 * kPart);
    }
    if (step > 0) {
      Multiply(index, parts + (step - 1) % 2 * kPart, state);
    }
    if (step == count) {
      Store(index, *state);
    } else {
      AwaitCopies();
    }
  }

 private:
  KCONV_HOST_DEVICE int64_t BlocksAcross() const {
    return (p.columns + kColumns - 1) / kColumns;
  }
  KCONV_HOST_DEVICE int64_t BlocksDown() const {
    return (p.rows + kRows - 1) / kRows;
  }
  KCONV_HOST_DEVICE int64_t SliceOf(int64_t block) const {
    return p.slices == 1 ? 0
                         : block / (BlocksAcross() * BlocksDown() * p.batch);
  }
  KCONV_HOST_DEVICE int64_t DepthOf(int64_t slice) const {
    if (p.slices == 1) return p.depth;
    const int64_t rest = p.depth - slice * p.slice_depth;
    return rest < 0 ? 0 : rest < p.slice_depth ? rest : p.slice_depth;
  }
  KCONV_HOST_DEVICE static int64_t PartsOf(int64_t depth) {
    return (depth + kDepth - 1) / kDepth;
  }

  KCONV_HOST_DEVICE void Begin(int64_t block, int index, State* state) const {
    const int64_t slice = SliceOf(block);
    const int64_t column = block % BlocksAcross() * kColumns;
    block /= BlocksAcross();
    const int64_t row = block % BlocksDown() * kRows;
    const int64_t product = block / BlocksDown() % p.batch;
    const int64_t first = slice * p.slice_depth;
    state->a = p.a + product * p.a_batch + row +
               (first + Fours<kRows>::Line(index)) * p.a_row +
               Fours<kRows>::At(index);
    state->b = p.b + product * p.b_batch + column +
               (first + Fours<kColumns>::Line(index)) * p.b_row +
               Fours<kColumns>::At(index);
    state->c =
        p.c + slice * p.c_slice + product * p.c_batch + row * p.c_row + column;
    const int64_t rows = p.rows - row, columns = p.columns - column;
    state->rows = rows < kRows ? static_cast<int>(rows) : kRows;
    state->columns = columns < kColumns ? static_cast<int>(columns) : kColumns;
    state->depth = DepthOf(slice);
  }

  // Which fours of a factor [kDepth][kWidth] a thread copies: of every
  // kApart-th line, at the same place.
  template <int kWidth>
  struct Fours {
    static constexpr int kOfLine = kWidth / 4;
    static constexpr int kApart = kMostThreads / kOfLine;
    static_assert(kMostThreads % kOfLine == 0 && kDepth % kApart == 0,
                  "Threads have equal shares.");
    KCONV_HOST_DEVICE static int Line(int index) { return index / kOfLine; }
    KCONV_HOST_DEVICE static int At(int index) { return index % kOfLine * 4; }

    // `from` is the thread's first, of `depth` lines of `width`.
    KCONV_HOST_DEVICE static void Copy(const float* from, int64_t row,
                                       int64_t depth, int width, int index,
                                       float* to) {
      const int line = Line(index), at = At(index);
      const bool exists = at < width;
      to += line * kWidth + at;
      KCONV_UNROLL
      for (int i = 0; i < kDepth; i += kApart) {
        StartCopy(from, exists && line + i < depth, to + i * kWidth);
        from += kApart * row;
      }
    }
  };

  // `depth` is left.
  KCONV_HOST_DEVICE void Load(int64_t depth, int index, State* state,
                              float* to) const {
    Fours<kRows>::Copy(state->a, p.a_row, depth, state->rows, index, to);
    Fours<kColumns>::Copy(state->b, p.b_row, depth, state->columns, index,
                          to + kDepth * kRows);
    state->a += kDepth * p.a_row;
    state->b += kDepth * p.b_row;
  }

  // A warp has 64 x 32 sums; a thread's lie in two runs of four along both, so
  // that the threads of a warp read 8 and 4 neighbouring runs at a time.
  struct Place {
    int row, column;
  };
  KCONV_HOST_DEVICE static Place PlaceOf(int index) {
    constexpr int kWarpsAcross = kColumns / 32;
    const int warp = index / 32, lane = index % 32;
    return {warp / kWarpsAcross * 64 + lane / 4 * 4,
            warp % kWarpsAcross * 32 + lane % 4 * 4};
  }

  KCONV_HOST_DEVICE void Multiply(int index, const float* part,
                                  State* state) const {
    const Place place = PlaceOf(index);
    const float* a = part + place.row;
    const float* b = part + kDepth * kRows + place.column;
    KCONV_UNROLL
    for (int d = 0; d < kDepth; ++d) {
      AddProducts(a + d * kRows, a + d * kRows + 32, b + d * kColumns,
                  b + d * kColumns + 16, state->sum);
    }
  }

  KCONV_HOST_DEVICE void Store(int index, const State& state) const {
    const Place place = PlaceOf(index);
    KCONV_UNROLL
    for (int i = 0; i < 8; ++i) {
      const int row = place.row + i % 4 + i / 4 * 32;
      if (row >= state.rows) continue;
      KCONV_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int column = place.column + half * 16;
        if (column >= state.columns) continue;
        float* to = state.c + row * p.c_row + column;
        Four four = p.add ? LoadFour(to) : Four{};
        KCONV_UNROLL
        for (int j = 0; j < 4; ++j) four.at[j] += state.sum[i][half * 4 + j];
        StoreFour(four, to);
      }
    }
  }
};

// The blocks that leave the fewest of their sums unused, or else the larger.
inline int64_t GemmBlock(int64_t size) {
  return RoundUp(size, 64) < RoundUp(size, 128) ? 64 : 128;
}
inline int64_t GemmBlocks(int64_t rows, int64_t columns) {
  return CeilDivide(rows, GemmBlock(rows)) *
         CeilDivide(columns, GemmBlock(columns));
}

template <typename Launcher>
const char* RunGemm(const Gemm& gemm, const Launcher& launch) {
  const auto run = [&](auto kernel) {
    kernel.p = gemm;
    return launch(kernel, kernel.Launch());
  };
  const bool narrow = GemmBlock(gemm.columns) == 64;
  if (GemmBlock(gemm.rows) == 64) {
    return narrow ? run(GemmKernel<64, 64>()) : run(GemmKernel<64, 128>());
  }
  return narrow ? run(GemmKernel<128, 64>()) : run(GemmKernel<128, 128>());
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_GEMM_H_
