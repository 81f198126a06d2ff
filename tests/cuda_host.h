// Launchers that run the kernels of the GPU on the host, or only look at them.

#ifndef KCONV_TESTS_CUDA_HOST_H_
#define KCONV_TESTS_CUDA_HOST_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "cuda/phases.h"

namespace kconv::host {

struct Free {
  void operator()(char* p) const { ::operator delete(p, std::align_val_t(16)); }
};
using Memory = std::unique_ptr<char, Free>;

// Exactly so many bytes, so that an address sanitizer finds whatever leaves
// them; NaN in every type.
inline Memory Allocate(int64_t bytes) {
  auto* p = static_cast<char*>(
      ::operator new(static_cast<size_t>(bytes), std::align_val_t(16)));
  std::memset(p, 0xff, static_cast<size_t>(bytes));
  return Memory(p);
}

// Null, or what no GPU would launch.
template <typename Kernel>
const char* Unfit(const cuda::Launch& launch) {
  if (launch.threads < 1 || launch.threads > Kernel::kMostThreads) {
    return "Threads of a block.";
  }
  if (Kernel::kMostThreads > 1024) return "Most threads of a block.";
  if (launch.shared_bytes < 0 || launch.shared_bytes > cuda::kMostSharedBytes) {
    return "Shared memory.";
  }
  if (sizeof(Kernel) > 4000) return "Size of the kernel's arguments.";
  return nullptr;
}

// Runs every thread of every block, one after the other. Those of a step run
// from the first to the last, or backwards: their order must not matter.
class Launcher {
 public:
  explicit Launcher(bool backwards) : backwards_(backwards) {}

  template <typename Kernel>
  const char* operator()(const Kernel& kernel,
                         const cuda::Launch& launch) const {
    if (launch.blocks == 0) return nullptr;
    if (const char* unfit = Unfit<Kernel>(launch)) return unfit;
    for (int64_t i = 0; i < launch.blocks; ++i) {
      cuda::Thread thread;
      thread.block = backwards_ ? launch.blocks - 1 - i : i;
      thread.count = launch.threads;
      const Memory shared = Allocate(launch.shared_bytes);
      std::vector<typename Kernel::State> states(
          static_cast<size_t>(launch.threads));
      const int64_t steps = kernel.Steps(thread.block);
      for (int64_t step = 0; step < steps; ++step) {
        for (int j = 0; j < launch.threads; ++j) {
          thread.index = backwards_ ? launch.threads - 1 - j : j;
          kernel.Step(step, thread, shared.get(),
                      &states[static_cast<size_t>(thread.index)]);
        }
      }
    }
    return nullptr;
  }

 private:
  bool backwards_;
};

// Runs nothing; sees how much would be launched.
class Recorder {
 public:
  explicit Recorder(cuda::Launch* most) : most_(most) {}

  template <typename Kernel>
  const char* operator()(const Kernel&, const cuda::Launch& launch) const {
    if (launch.blocks == 0) return nullptr;
    if (const char* unfit = Unfit<Kernel>(launch)) return unfit;
    most_->blocks = std::max(most_->blocks, launch.blocks);
    most_->threads = std::max(most_->threads, launch.threads);
    most_->shared_bytes = std::max(most_->shared_bytes, launch.shared_bytes);
    return nullptr;
  }

 private:
  cuda::Launch* most_;
};

// How the next runs of this process go.
struct Manner {
  bool backwards = false;
  int shift = 0;  // elements by which every tensor is moved off its alignment
};
extern Manner manner;

// How often the library ran something.
extern std::atomic<int64_t> runs;

}  // namespace kconv::host

#endif  // KCONV_TESTS_CUDA_HOST_H_
