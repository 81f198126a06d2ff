#include "algorithms/grouped/cuda.h"
#include "algorithms/grouped/cuda_run.h"
#include "cuda/launch.cuh"

namespace kconv::grouped {

const char* RefuseOnCuda(const Problem& problem) {
  return CudaRefusal(problem);
}

int64_t CudaWorkspace(const Problem& problem) {
  return CudaWorkspaceBytes(problem);
}

const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream) {
  return CudaRunBy(problem, args, workspace, cuda::Stream(stream));
}

}  // namespace kconv::grouped
