#include "algorithms/gemm/cuda.h"
#include "algorithms/gemm/cuda_run.h"
#include "cuda/launch.cuh"

namespace kconv::gemm {

// cuda_filter.cu, which takes as long to compile as this file.
const char* RunFilterOnCuda(const Problem& problem, const ConvArgs& args,
                            void* workspace, void* stream);

const char* RefuseOnCuda(const Problem& problem) {
  return CudaRefusal(problem);
}

int64_t CudaWorkspace(const Problem& problem) {
  return CudaWorkspaceBytes(problem);
}

const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream) {
  return problem.pass == Pass::kFilterGradient
             ? RunFilterOnCuda(problem, args, workspace, stream)
             : CudaRunImage(problem, args, workspace, cuda::Stream(stream));
}

}  // namespace kconv::gemm
