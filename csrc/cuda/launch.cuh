// Runs the kernels of phases.h on a GPU.

#ifndef KCONV_CUDA_LAUNCH_CUH_
#define KCONV_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/phases.h"

namespace kconv::cuda {

// Kernel::kLeastBlocks; 0, which asks for nothing, for a kernel that has none.
template <typename Kernel, typename = void>
struct LeastBlocks : std::integral_constant<int, 0> {};
template <typename Kernel>
struct LeastBlocks<Kernel, std::void_t<decltype(Kernel::kLeastBlocks)>>
    : std::integral_constant<int, Kernel::kLeastBlocks> {};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kMostThreads,
                                  LeastBlocks<Kernel>::value)
    RunSteps(const Kernel kernel, int64_t blocks) {
  // float4's alignment, for whatever a kernel keeps there.
  extern __shared__ float4 shared[];
  Thread thread;
  thread.index = static_cast<int>(threadIdx.x);
  thread.count = static_cast<int>(blockDim.x);
  for (thread.block = blockIdx.x; thread.block < blocks;
       thread.block += gridDim.x) {
    typename Kernel::State state{};
    const int64_t steps = kernel.Steps(thread.block);
    for (int64_t step = 0; step < steps; ++step) {
      kernel.Step(step, thread, shared, &state);
      if (step + 1 < steps || thread.block + gridDim.x < blocks) {
        __syncthreads();
      }
    }
  }
}

// Launches kernels on a stream of CUDA's runtime, of the current device.
class Stream {
 public:
  explicit Stream(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  // Null, or a sentence that CUDA says.
  template <typename Kernel>
  const char* operator()(const Kernel& kernel, const Launch& launch) const {
    if (launch.blocks == 0) return nullptr;
    if (launch.shared_bytes > kPlainSharedBytes) {
      // Always as much: another thread may be about to launch the same kernel
      // with more than this launch needs.
      const cudaError_t error = cudaFuncSetAttribute(
          RunSteps<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
          static_cast<int>(kMostSharedBytes));
      if (error != cudaSuccess) return Said(error);
    }
    constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
    RunSteps<Kernel>
        <<<static_cast<unsigned>(std::min(launch.blocks, kMostBlocks)),
           static_cast<unsigned>(launch.threads),
           static_cast<size_t>(launch.shared_bytes), stream_>>>(kernel,
                                                                launch.blocks);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : Said(error);
  }

 private:
  // Clears what would else be found by the next call of someone else.
  static const char* Said(cudaError_t error) {
    cudaGetLastError();
    return cudaGetErrorString(error);
  }

  cudaStream_t stream_;
};

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_LAUNCH_CUH_
