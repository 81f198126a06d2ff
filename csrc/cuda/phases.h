// A kernel of the GPU as plain functions, which the host can run as well.
//
// The threads of a block work in steps; between two steps they wait for one
// another. A kernel is a struct that the launcher copies to the GPU:
//
//   struct Kernel {
//     struct State {...};                 // of a thread, from step to step
//     int64_t Steps(int64_t block) const;
//     void Step(int64_t step, const Thread&, void* shared, State*) const;
//     static constexpr int kMostThreads;  // of a block
//     // Blocks that share a multiprocessor, and so its registers. May be
//     // left out.
//     static constexpr int kLeastBlocks;
//   };
//
// Steps says the same to all threads of a block. Within a step no thread writes
// to shared memory what another one reads or writes. launch.cuh runs kernels on
// a GPU, tests/cuda_host.cc runs them thread after thread.

#ifndef KCONV_CUDA_PHASES_H_
#define KCONV_CUDA_PHASES_H_

#include <cstdint>

namespace kconv::cuda {

// Which thread it is.
struct Thread {
  int64_t block;
  int index;  // in its block
  int count;  // of threads in a block
};

// The shape of a launch. There may be more blocks than a GPU takes at a time:
// it then walks through them.
struct Launch {
  int64_t blocks = 0;
  int threads = 0;
  int64_t shared_bytes = 0;
};

// Shared memory of a block: what it may have by itself, and what every GPU from
// compute capability 8.0 gives when asked.
inline constexpr int64_t kPlainSharedBytes = 48 << 10;
inline constexpr int64_t kMostSharedBytes = 99 << 10;

// State of threads that keep none.
struct NoState {};

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_PHASES_H_
