#include "algorithms/direct/cuda.h"
#include "algorithms/direct/cuda_run.h"
#include "cuda/launch.cuh"

namespace kconv::direct {

int64_t CudaWorkspace(const Problem& problem) {
  return CudaWorkspaceBytes(problem);
}

const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream) {
  return CudaRunBy(problem, args, workspace, cuda::Stream(stream));
}

}  // namespace kconv::direct
