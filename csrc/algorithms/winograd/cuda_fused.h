// F(2x2, 3x3) in one kernel of the GPU, from the image to its results.
//
// A block takes kTiles tiles and kResults results of them. For 8 channels at a
// time it transforms the tiles into shared memory and copies U there, while it
// multiplies those before; each of its 16 warps has one frequency, 8 x 8 sums a
// thread. At the end the sums of all frequencies meet in shared memory, half of
// them at a time.
//
// Source: D. Yan, W. Wang and X. Chu, Optimizing Batched Winograd Convolution
// on GPUs, PPoPP 2020.

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_FUSED_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_FUSED_H_

#include <cstdint>

#include "algorithms/winograd/cuda_patch.h"
#include "algorithms/winograd/cuda_plan.h"
#include "cuda/phases.h"
#include "cuda/tile.h"

namespace kconv::winograd {

// kTileLanes of a warp's lanes lie along tiles, the others along results: 4 or
// 8 of 32.
template <typename Element, int kTileLanes>
struct CudaFused {
  static constexpr int kPlanes = CudaFusedPlanes::kPlanes;
  static constexpr int kMostThreads = 32 * kPlanes;
  static constexpr int kResultLanes = 32 / kTileLanes;
  static constexpr int kTiles = 8 * kTileLanes;
  static constexpr int kResults = 8 * kResultLanes;
  static constexpr int kDepth = CudaFusedPlanes::kDepth;
  // Floats of a step: V [plane][channel][tile], U [plane][channel][result].
  static constexpr int kV = kPlanes * kDepth * kTiles;
  static constexpr int kU = kPlanes * kDepth * kResults;
  // Threads that transform a tile of a channel, and those that copy U.
  static constexpr int kLoaders = kDepth * kTiles;
  static constexpr int kCopiers =
      kLoaders < kMostThreads ? kMostThreads - kLoaders : kMostThreads;
  // Tiles, and results, of half of the sums: M [plane][tile][result].
  static constexpr int kSide = 32;

  struct State {
    float sum[8][8];
    CudaPatch<Element, 4> patch;  // in the channel that is next
    const float* u;               // what the thread copies next
  };

  CudaPass pass;
  CudaFusedPlanes planes;
  const Element* read;
  const float* u;
  CudaWriting<Element> writing;

  cuda::Launch Launch() const {
    return {CeilDivide(pass.tiling.count, kTiles) * pass.groups *
                CeilDivide(pass.results, kResults),
            kMostThreads, 2 * (kV + kU) * 4};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return Parts() + 5; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State* state) const {
    float* memory = static_cast<float*>(shared);
    const int index = cuda::Afresh(thread.index);
    const int64_t parts = Parts();
    if (step == 0) Begin(thread.block, index, state);
    if (step <= parts) {
      float* next = memory + step % 2 * (kV + kU);
      const float* now = memory + (step + 1) % 2 * (kV + kU);
      if (step < parts) Copy(index, state, next + kV);
      // While half of the threads wait for their tiles, the others multiply.
      const bool loads = step < parts && index < kLoaders;
      const int turn_to_load = index < kMostThreads / 2 ? 0 : 1;
      KCONV_NO_UNROLL
      for (int turn = 0; turn < 2; ++turn) {
        if (turn == turn_to_load) {
          if (loads) Transform(step, cuda::Afresh(index), state, next);
        } else if (step > 0) {
          Multiply(cuda::Afresh(index), now, state);
        }
      }
      cuda::AwaitCopies();
      return;
    }
    switch (step - parts) {
      case 1:
        return Spread<0>(index, *state, memory);
      case 2:
        return Finish(0, thread.block, index, memory);
      case 3:
        return Spread<1>(index, *state, memory);
      default:
        return Finish(1, thread.block, index, memory);
    }
  }

 private:
  using InputTable = InputMatrix<CookToom<2, 3>>;
  using OutputTable = OutputMatrix<CookToom<2, 3>, 2>;

  // What a block takes.
  struct Block {
    int64_t tile, group, result;
  };
  KCONV_HOST_DEVICE Block BlockOf(int64_t block) const {
    const int64_t across = (pass.results + kResults - 1) / kResults;
    const int64_t rest = block / across;
    return {rest / pass.groups * kTiles, rest % pass.groups,
            block % across * kResults};
  }

  KCONV_HOST_DEVICE int64_t Parts() const {
    return (pass.channels + kDepth - 1) / kDepth;
  }

  // The channel and the tile that a thread transforms: side by side as they lie
  // in the image.
  KCONV_HOST_DEVICE int ChannelOf(int index) const {
    return pass.last ? index % kDepth : index / kTiles;
  }
  KCONV_HOST_DEVICE int TileOf(int index) const {
    return pass.last ? index / kDepth : index % kTiles;
  }

  KCONV_HOST_DEVICE void Begin(int64_t number, int index, State* state) const {
    const Block block = BlockOf(number);
    state->u = u + planes.At(block.group, 0, block.result) +
               (index - (kMostThreads - kCopiers)) * 4;
    const int64_t tile = block.tile + TileOf(index);
    if (index < kLoaders && tile < pass.tiling.count) {
      const CudaTiling::Place at = pass.tiling.At(tile);
      const int64_t channel = block.group * pass.channels + ChannelOf(index);
      state->patch = CudaPatch<Element, 4>(
          read + channel * pass.read.channel, pass.read, at.image,
          at.row * 2 - pass.pad_y, at.column * 2 - pass.pad_x);
    }
  }

  KCONV_HOST_DEVICE void Copy(int index, State* state, float* to) const {
    index -= kMostThreads - kCopiers;
    if (index < 0) return;
    to += index * 4;
    KCONV_UNROLL
    for (int i = 0; i < kU; i += kCopiers * 4) {
      cuda::StartCopy(state->u + i, true, to + i);
    }
    state->u += kU;
  }

  // Fours of tiles change places with the channel, so that threads side by side
  // along channels do not meet in a bank.
  KCONV_HOST_DEVICE void Transform(int64_t step, int index, State* state,
                                   float* v) const {
    const int channel = ChannelOf(index), tile = TileOf(index);
    Element x[4][4];
    state->patch.Load(pass.read, step * kDepth + channel < pass.channels, x);
    state->patch.first += kDepth * pass.read.channel;
    v += channel * kTiles + (tile / 4 ^ channel) * 4 + tile % 4;
    CudaTransform<InputTable>(
        x, [&](int plane, float value) { v[plane * kDepth * kTiles] = value; });
  }

  // A lane has the tiles 4 * TileLane + (0 to 3), and as many in the other half
  // of all tiles; so the results.
  KCONV_HOST_DEVICE static int TileLane(int index) {
    return index % 32 / kResultLanes;
  }
  KCONV_HOST_DEVICE static int ResultLane(int index) {
    return index % kResultLanes;
  }

  KCONV_HOST_DEVICE void Multiply(int index, const float* part,
                                  State* state) const {
    const int plane = index / 32;
    const float* v = part + plane * kDepth * kTiles;
    const float* weights =
        part + kV + plane * kDepth * kResults + ResultLane(index) * 4;
    const int low = TileLane(index), high = low + kTileLanes;
    KCONV_UNROLL
    for (int channel = 0; channel < kDepth; ++channel) {
      const float* row = v + channel * kTiles;
      const float* b = weights + channel * kResults;
      cuda::AddProducts(row + (low ^ channel) * 4, row + (high ^ channel) * 4,
                        b, b + kResultLanes * 4, state->sum);
    }
  }

  // Half of the results, or of the tiles where those are more.
  static constexpr bool kHalvesResults = kResults > kTiles;

  // Fours of results change places with the tile: neither threads side by side
  // along results nor along tiles meet in a bank.
  KCONV_HOST_DEVICE static int MPlace(int tile, int result) {
    return tile * kSide + (result / 4 ^ tile % 8) * 4 + result % 4;
  }

  template <int kHalf>
  KCONV_HOST_DEVICE void Spread(int index, const State& state,
                                float* memory) const {
    float* m = memory + index / 32 * kSide * kSide;
    const int tile = TileLane(index) * 4, result = ResultLane(index) * 4;
    KCONV_UNROLL
    for (int i = 0; i < (kHalvesResults ? 8 : 4); ++i) {
      KCONV_UNROLL
      for (int j = 0; j < (kHalvesResults ? 4 : 8); j += 4) {
        cuda::Four four;
        KCONV_UNROLL
        for (int l = 0; l < 4; ++l) {
          four.at[l] = kHalvesResults ? state.sum[i][kHalf * 4 + l]
                                      : state.sum[kHalf * 4 + i][j + l];
        }
        const int row = tile + i % 4 + i / 4 * (kTileLanes * 4);
        cuda::StoreFour(four,
                        m + MPlace(row, result + j / 4 * (kResultLanes * 4)));
      }
    }
  }

  KCONV_HOST_DEVICE void Finish(int half, int64_t number, int index,
                                const float* memory) const {
    const Block block = BlockOf(number);
    // The sums take most registers already.
    KCONV_NO_UNROLL
    for (int i = 0; i < kSide * kSide / kMostThreads; ++i) {
      // Side by side along results, or 8 along tiles and 4 along results.
      const int pair = index + i * kMostThreads, warp = pair / 32;
      const int row = pass.last ? warp : pair / 4 % 8 + warp / (kSide / 4) * 8;
      const int column =
          pass.last ? pair % 32 : pair % 4 + warp % (kSide / 4) * 4;
      const int64_t tile = block.tile + row + (kHalvesResults ? 0 : half * 32);
      const int64_t result =
          block.result + column + (kHalvesResults ? half * 32 : 0);
      if (tile >= pass.tiling.count || result >= pass.results) continue;
      float m[4][4];
      KCONV_UNROLL
      for (int plane = 0; plane < kPlanes; ++plane) {
        m[plane / 4][plane % 4] =
            memory[plane * kSide * kSide + MPlace(row, column)];
      }
      writing.template Write<OutputTable>(m, pass.tiling.At(tile),
                                          block.group * pass.results + result);
    }
  }
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_FUSED_H_
