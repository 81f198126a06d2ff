// How the work is cut, and where frequencies lie in memory.
//
// Constants and sizes of caches, none of the number of threads: the same
// blocks, and so the same bits, on 1 core and on 64.

#ifndef KCONV_ALGORITHMS_WINOGRAD_BLOCKING_H_
#define KCONV_ALGORITHMS_WINOGRAD_BLOCKING_H_

#include <algorithm>
#include <cstdint>

#include "cpu.h"
#include "gemm/gemm.h"
#include "split.h"

namespace kconv::winograd {

inline constexpr int64_t kLineFloats = 16;  // of a cache line of 64 bytes

// Floats from plane to plane: strides of a power of two would fall into few
// sets of the cache.
inline int64_t PlaneStride(int64_t floats) {
  return RoundUp(floats, kLineFloats) + kLineFloats;
}

// Of the second-level cache, which a core has to itself.
inline int64_t CacheFloats() {
  const int64_t bytes = ThisCpu().l2_bytes;
  return std::clamp<int64_t>(bytes, 256 << 10, 2 << 20) / 4;
}

// Frequencies that all threads share at a time: they should stay in the
// third-level cache.
inline constexpr int64_t kSharedFloats = (int64_t{8} << 20) / 4;
// ... and at most, where channels are so many that a few tiles take more.
inline constexpr int64_t kMaxSharedFloats = (int64_t{64} << 20) / 4;

// Tiles of a block are a multiple of the micro-kernel's rows, 6 or 4.
inline constexpr int64_t kTileUnit = 12;

// Enough tasks for the cores of a large machine.
inline constexpr int64_t kWantedTasks = 32;

// For the scheduler only: how fast the products run, about.
inline constexpr double kMacsPerSecond = 4e10;

// Channels of one product: a part of those of a tap.
inline constexpr int64_t kChunk = 64;

// Columns of one product, in panels of the micro-kernel.
inline int64_t BlockColumns(const GemmKernel<float>& kernel) {
  return std::max<int64_t>(kernel.panel, 32);
}

// Tiles of a block: at most `most`, fewer where `floats_per_tile` are many, but
// no fewer than kTileUnit.
inline int64_t TilesThatFit(int64_t most, int64_t floats_per_tile) {
  const int64_t fit = kMaxSharedFloats / std::max<int64_t>(1, floats_per_tile);
  return std::clamp(fit / kTileUnit * kTileUnit, kTileUnit, most);
}

// Work beside the products, counted in multiply-adds of the same duration: what
// it takes to make or read an element of V, U or M. Measured on Zen 3.
inline constexpr double kMacsPerV = 26;
inline constexpr double kMacsPerU = 12;
inline constexpr double kMacsPerM = 11;
inline constexpr double kMacsPerSharedV = 5;  // read by another thread
inline constexpr double kMacsPerTapRead = 5;  // of a filter, from memory

// A product of few channels spends its time on M.
inline double ProductMacs(double macs, int64_t depth) {
  return macs * (1 + 8.0 / static_cast<double>(std::max<int64_t>(depth, 1)));
}

// Hands out the parts of a workspace, each on a cache line. From null it only
// counts.
class Arena {
 public:
  explicit Arena(void* begin) : at_(reinterpret_cast<intptr_t>(begin)) {}

  template <typename T = float>
  T* Take(int64_t count) {
    T* taken = reinterpret_cast<T*>(at_);
    at_ += RoundUp(count * int64_t{sizeof(T)}, 64);
    return taken;
  }
  int64_t Bytes() const { return at_; }

 private:
  intptr_t at_;
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_BLOCKING_H_
