// A tile of a matrix product, by a block of threads: some depth of both factors
// lies in shared memory, and each thread has a square of sums.

#ifndef KCONV_DEFORMABLE_CUDA_TILE_H_
#define KCONV_DEFORMABLE_CUDA_TILE_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_four.h"
#include "split.h"

#ifdef __CUDA_ARCH__
#define KCONV_UNROLL_BY_2 _Pragma("unroll 2")
#define KCONV_UNROLL_BY_4 _Pragma("unroll 4")
#else
#define KCONV_UNROLL_BY_2
#define KCONV_UNROLL_BY_4
#endif

namespace kconv::deformable {

// Of both factors, at a time.
inline constexpr int kCudaDepth = 16;

// Rows or columns of a tile, at least.
inline constexpr int64_t kLeastTileSide = 32;

// Threads of a block, at most, here and in the kernels without a tile.
inline constexpr int kCudaThreads = 256;

// The same number, about which the compiler knows nothing: it would else
// compute all addresses of a tile before it writes the first sum, and has no
// registers for them.
KCONV_HOST_DEVICE inline int32_t Opaque(int32_t number) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(number));
#endif
  return number;
}

// What the compiler is told of blocks with a tile of float sums: with 512
// threads they would have 128 registers each, and so two blocks of 256 fit.
template <typename Sum>
inline constexpr int kCudaTileThreads =
    sizeof(Sum) == 4 ? 2 * kCudaThreads : kCudaThreads;

// The sums of a thread.
template <typename Sum>
struct CudaSums {
  static constexpr int kSide = 32 / static_cast<int>(sizeof(Sum));
  Sum sum[kSide][kSide];
};

// Rows and columns of the tile are those of the product. In shared memory lie,
// for each of two buffers, the rows' factor and then the columns', each a line
// for every step of the depth. Lines are as long as the largest tile's, so that
// the compiler knows where they are.
template <typename Sum>
struct CudaTile {
  static constexpr int kSide = CudaSums<Sum>::kSide;
  static constexpr int kQuads = kSide / 4;
  static constexpr int kMost = 16 * kSide;  // rows or columns
  // Not a multiple of the 32 banks, but of 16 bytes.
  static constexpr int kLine = kMost + 4;
  static constexpr int kFactor = kCudaDepth * kLine;

  // Threads down and across, as powers of two.
  int down_bits = 3, across_bits = 3;

  KCONV_HOST_DEVICE int Rows() const { return kSide << down_bits; }
  KCONV_HOST_DEVICE int Columns() const { return kSide << across_bits; }
  int Threads() const { return 1 << (down_bits + across_bits); }
  int64_t SharedBytes() const { return 4 * kFactor * int64_t{sizeof(Sum)}; }

  KCONV_HOST_DEVICE Sum* RowFactor(void* shared, int buffer) const {
    return static_cast<Sum*>(shared) + (buffer & 1) * (2 * kFactor);
  }
  KCONV_HOST_DEVICE Sum* ColumnFactor(void* shared, int buffer) const {
    return RowFactor(shared, buffer) + kFactor;
  }

  // Where a thread's sum [i][j] lies: rows and columns in runs of four, which
  // are spread over the tile so that neighbours read neighbouring runs.
  KCONV_HOST_DEVICE int RowAt(const cuda::Thread& thread, int i) const {
    return i / 4 * (Rows() / kQuads) + (thread.index >> across_bits) * 4 +
           i % 4;
  }
  KCONV_HOST_DEVICE int ColumnAt(const cuda::Thread& thread, int j) const {
    const int across = thread.index & ((1 << across_bits) - 1);
    return j / 4 * (Columns() / kQuads) + across * 4 + j % 4;
  }

  // Adds what lies in a buffer.
  KCONV_HOST_DEVICE void Multiply(const cuda::Thread& thread, void* shared,
                                  int buffer, CudaSums<Sum>* sums) const {
    const Sum* a = RowFactor(shared, buffer) + RowAt(thread, 0);
    const Sum* b = ColumnFactor(shared, buffer) + ColumnAt(thread, 0);
    const int row_run = Rows() / kQuads, column_run = Columns() / kQuads;
    KCONV_UNROLL_BY_4
    for (int d = 0; d < kCudaDepth; ++d) {
      Sum x[kSide], y[kSide];
      KCONV_UNROLL
      for (int q = 0; q < kQuads; ++q) {
        CopyFour(a + q * row_run, x + 4 * q);
        CopyFour(b + q * column_run, y + 4 * q);
      }
      KCONV_UNROLL
      for (int i = 0; i < kSide; ++i) {
        KCONV_UNROLL
        for (int j = 0; j < kSide; ++j) sums->sum[i][j] += x[i] * y[j];
      }
      a += kLine;
      b += kLine;
    }
  }

  // Calls body(row, column, sums) for each four sums of a thread that lie side
  // by side.
  template <typename Body>
  KCONV_HOST_DEVICE void ForFours(const cuda::Thread& thread,
                                  const CudaSums<Sum>& sums,
                                  const Body& body) const {
    KCONV_UNROLL
    for (int i = 0; i < kSide; ++i) {
      KCONV_UNROLL
      for (int q = 0; q < kQuads; ++q) {
        body(RowAt(thread, i), ColumnAt(thread, 4 * q), &sums.sum[i][4 * q]);
      }
    }
  }
};

// Fills a factor's `size` rows or columns: fetch(step, first, value) reads
// four of a step of the depth.
template <typename Sum, typename Fetch>
KCONV_HOST_DEVICE inline void FillLines(const cuda::Thread& thread, int size,
                                        Sum* to, const Fetch& fetch) {
  const int fours = size / 4;
  const int first = thread.index % fours * 4, step = thread.count / fours;
  KCONV_UNROLL_BY_2
  for (int d = thread.index / fours; d < kCudaDepth; d += step) {
    Sum value[4];
    fetch(d, first, value);
    PutFour(value, to + d * CudaTile<Sum>::kLine + first);
  }
}

// The same where fetch(row, step, value) reads four steps of the depth.
template <typename Sum, typename Fetch>
KCONV_HOST_DEVICE inline void FillTurned(const cuda::Thread& thread, int size,
                                         Sum* to, const Fetch& fetch) {
  constexpr int kLine = CudaTile<Sum>::kLine, kFours = kCudaDepth / 4;
  const int first = thread.index % kFours * 4, step = thread.count / kFours;
  to += first * kLine;
  KCONV_UNROLL_BY_2
  for (int row = thread.index / kFours; row < size; row += step) {
    Sum value[4];
    fetch(row, first, value);
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) to[j * kLine + row] = value[j];
  }
}

// The tile of a product: large, so that each factor is read seldom, but small
// enough that `wanted` blocks have work where `copies` products are computed.
template <typename Sum>
CudaTile<Sum> TileFor(int64_t rows, int64_t columns, int64_t copies,
                      int64_t wanted) {
  constexpr int kSide = CudaTile<Sum>::kSide;
  constexpr int64_t kMost = CudaTile<Sum>::kMost;
  constexpr int64_t kLeast = kLeastTileSide, kLeastThreads = 64;
  // No larger than the product, and at least kLeastThreads.
  int64_t wide = kLeast, tall = kLeast;
  while (wide < columns && wide < kMost) wide *= 2;
  while ((tall < rows && tall < kMost) ||
         tall * wide < kLeastThreads * kSide * kSide) {
    tall *= 2;
  }
  while (CeilDivide(rows, tall) * CeilDivide(columns, wide) * copies < wanted &&
         tall * wide > kLeastThreads * kSide * kSide) {
    if (tall >= wide || wide == kLeast) {
      tall /= 2;
    } else {
      wide /= 2;
    }
  }
  CudaTile<Sum> tile;
  tile.down_bits = tile.across_bits = 0;
  while ((kSide << tile.down_bits) < tall) ++tile.down_bits;
  while ((kSide << tile.across_bits) < wide) ++tile.across_bits;
  return tile;
}

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_TILE_H_
