// A product of matrices, tile by tile: what a block keeps in shared memory and
// in registers.

#ifndef KCONV_ALGORITHMS_GEMM_CUDA_TILE_H_
#define KCONV_ALGORITHMS_GEMM_CUDA_TILE_H_

#include <cstdint>

#include "cuda/host_device.h"

namespace kconv::gemm {

inline constexpr int kCudaDepth = 8;  // of a tile's operands at a time

// kRowsOf x kColumnsOf sums of a block, kThreadRowsOf x kThreadColumnsOf of a
// thread.
//
// The operands lie as left[depth][row] and right[depth][column], twice: while
// one pair is multiplied, the next is stored. Four elements between the rows of
// these are not used: with them both ways of storing, along the depth and
// across it, meet different banks.
template <int kRowsOf, int kColumnsOf, int kThreadRowsOf, int kThreadColumnsOf>
struct CudaTile {
  static constexpr int kRows = kRowsOf, kColumns = kColumnsOf;
  static constexpr int kThreadRows = kThreadRowsOf;
  static constexpr int kThreadColumns = kThreadColumnsOf;
  static constexpr int kThreadsY = kRows / kThreadRows;
  static constexpr int kThreadsX = kColumns / kThreadColumns;
  static constexpr int kThreads = kThreadsX * kThreadsY;
  // Blocks for 16 warps, of 128 registers a thread; for 12 where a thread has
  // four quads on their way beside 64 sums.
  static constexpr int kBlocks =
      kRows == 256 && kThreadColumns == 8 ? 3 : 512 / kThreads;
  static constexpr int kLeftPitch = kRows + 4, kRightPitch = kColumns + 4;
  static constexpr int kLeft = kCudaDepth * kLeftPitch;
  static constexpr int kPair = kLeft + kCudaDepth * kRightPitch;
  static constexpr int kFloats = 2 * kPair;

  using Sums = float[kThreadRows][kThreadColumns];

  // A thread's sums are blocks of 4 x 4, spread over the tile so that threads
  // side by side read, and write, side by side.
  struct Place {
    int row, column;
    KCONV_HOST_DEVICE int Row(int i) const {
      return row + i / 4 * (kRows * 4 / kThreadRows) + i % 4;
    }
    KCONV_HOST_DEVICE int Column(int j) const {
      return column + j / 4 * (kColumns * 4 / kThreadColumns) + j % 4;
    }
  };
  KCONV_HOST_DEVICE static Place PlaceOf(int index) {
    constexpr int kLanesX = kThreadsX < 4 ? kThreadsX : 4;
    constexpr int kLanesY = 32 / kLanesX;
    constexpr int kWarpsX = kThreadsX / kLanesX;
    static_assert(kThreads % 32 == 0 && kThreadsY % kLanesY == 0, "");
    const int warp = index / 32, lane = index % 32;
    const int x = warp % kWarpsX * kLanesX + lane % kLanesX;
    const int y = warp / kWarpsX * kLanesY + lane / kLanesX;
    return {y * 4, x * 4};
  }

  KCONV_HOST_DEVICE static void Multiply(const float* pair, const Place& place,
                                         Sums& sums) {
    const float* left = pair;
    const float* right = pair + kLeft;
    KCONV_UNROLL
    for (int k = 0; k < kCudaDepth; ++k) {
      float a[kThreadRows], b[kThreadColumns];
      KCONV_UNROLL
      for (int i = 0; i < kThreadRows; i += 4) {
        Read(left + k * kLeftPitch + place.Row(i), a + i);
      }
      KCONV_UNROLL
      for (int j = 0; j < kThreadColumns; j += 4) {
        Read(right + k * kRightPitch + place.Column(j), b + j);
      }
      KCONV_UNROLL
      for (int i = 0; i < kThreadRows; ++i) {
        KCONV_UNROLL
        for (int j = 0; j < kThreadColumns; ++j) sums[i][j] += a[i] * b[j];
      }
    }
  }

 private:
  struct alignas(16) Four {
    float value[4];
  };
  KCONV_HOST_DEVICE static void Read(const float* from, float* to) {
    const Four four = *reinterpret_cast<const Four*>(from);
    KCONV_UNROLL
    for (int i = 0; i < 4; ++i) to[i] = four.value[i];
  }
};

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_CUDA_TILE_H_
