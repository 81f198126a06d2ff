#include "algorithms/gemm/cuda_run.h"
#include "cuda/launch.cuh"

namespace kconv::gemm {

const char* RunFilterOnCuda(const Problem& problem, const ConvArgs& args,
                            void* workspace, void* stream);

const char* RunFilterOnCuda(const Problem& problem, const ConvArgs& args,
                            void* workspace, void* stream) {
  return CudaRunFilter(problem, args, workspace, cuda::Stream(stream));
}

}  // namespace kconv::gemm
