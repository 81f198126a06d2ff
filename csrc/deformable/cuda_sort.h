// Samples in the order of the cells that they lie in, and as before within a
// cell: a radix sort of each image's by itself, a byte at a time, stable and
// without atomics. So a pixel's gradient is a sum in a fixed order.
//
// A block takes a chunk of samples, a thread a value of the byte: it walks
// through the chunk, which lies in shared memory, and counts or places what is
// its own.

#ifndef KCONV_DEFORMABLE_CUDA_SORT_H_
#define KCONV_DEFORMABLE_CUDA_SORT_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_tile.h"

namespace kconv::deformable {

inline constexpr int kSortBits = 8;
inline constexpr int kSortValues = 1 << kSortBits;
static_assert(kSortValues == kCudaThreads);

// Of a chunk, about as many as keep all of a GPU's blocks busy.
inline constexpr int kSortChunk = 1024;

// The samples of some images, [image][size], and the byte that is sorted by.
struct CudaSortPass {
  int64_t images, size, chunks;
  int shift;
  const int32_t* cells;
  const int32_t* numbers;  // of the samples; null: as they lie

  KCONV_HOST_DEVICE int64_t First(int64_t block) const {
    return block / chunks * size + block % chunks * kSortChunk;
  }
  KCONV_HOST_DEVICE int Count(int64_t block) const {
    const int64_t rest = size - block % chunks * kSortChunk;
    return rest < kSortChunk ? static_cast<int>(rest) : kSortChunk;
  }
  KCONV_HOST_DEVICE int Value(int32_t cell) const {
    return static_cast<int>(static_cast<uint32_t>(cell) >> shift) &
           (kSortValues - 1);
  }
};

// counts[image][chunk][value]
struct CudaSortCount {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  CudaSortPass pass;
  int32_t* counts;

  cuda::Launch Launch() const {
    return {pass.images * pass.chunks, kSortValues,
            kSortChunk * int64_t{sizeof(int32_t)}};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    auto* cells = static_cast<int32_t*>(shared);
    const int count = pass.Count(thread.block);
    if (step == 0) {
      const int32_t* from = pass.cells + pass.First(thread.block);
      for (int i = thread.index; i < count; i += thread.count) {
        cells[i] = pass.Value(from[i]);
      }
      return;
    }
    int32_t mine = 0;
    KCONV_UNROLL_BY_4
    for (int i = 0; i < count; ++i) mine += cells[i] == thread.index;
    counts[thread.block * kSortValues + thread.index] = mine;
  }
};

// The places where each chunk's samples of each value go to, in place of the
// counts: a block an image.
struct CudaSortScan {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;
  static constexpr int kAtOnce = 8;

  int64_t images, size, chunks;
  int32_t* counts;

  cuda::Launch Launch() const {
    return {images, kSortValues, kSortValues * int64_t{sizeof(int32_t)}};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    auto* totals = static_cast<int32_t*>(shared);
    int32_t* mine = counts + thread.block * chunks * kSortValues + thread.index;
    int32_t at = 0;
    if (step == 1) {
      at = static_cast<int32_t>(thread.block * size);
      for (int value = 0; value < thread.index; ++value) at += totals[value];
    }
    for (int64_t first = 0; first < chunks; first += kAtOnce) {
      int32_t count[kAtOnce];
      KCONV_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        count[i] = first + i < chunks ? mine[(first + i) * kSortValues] : 0;
      }
      KCONV_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        if (step == 1 && first + i < chunks) {
          mine[(first + i) * kSortValues] = at;
        }
        at += count[i];
      }
    }
    if (step == 0) totals[thread.index] = at;
  }
};

struct CudaSortPlace {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  CudaSortPass pass;
  const int32_t* places;  // CudaSortScan's
  int32_t* cells;
  int32_t* numbers;

  cuda::Launch Launch() const {
    return {pass.images * pass.chunks, kSortValues,
            2 * kSortChunk * int64_t{sizeof(int32_t)}};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    auto* of_chunk = static_cast<int32_t*>(shared);
    int32_t* numbers_of_chunk = of_chunk + kSortChunk;
    const int count = pass.Count(thread.block);
    if (step == 0) {
      const int64_t first = pass.First(thread.block);
      for (int i = thread.index; i < count; i += thread.count) {
        of_chunk[i] = pass.cells[first + i];
        numbers_of_chunk[i] = pass.numbers == nullptr
                                  ? static_cast<int32_t>(first + i)
                                  : pass.numbers[first + i];
      }
      return;
    }
    int32_t to = places[thread.block * kSortValues + thread.index];
    for (int i = 0; i < count; ++i) {
      if (pass.Value(of_chunk[i]) != thread.index) continue;
      cells[to] = of_chunk[i];
      numbers[to] = numbers_of_chunk[i];
      ++to;
    }
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_SORT_H_
