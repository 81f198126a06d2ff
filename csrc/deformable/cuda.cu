#include "cuda/launch.cuh"
#include "deformable/cuda.h"
#include "deformable/cuda_run.h"

namespace kconv::deformable {

// cuda_image.cu and cuda_filter.cu, so that no file takes long to compile.
const char* RunImageOnCuda(const DeformProblem& problem, const DeformArgs& args,
                           void* workspace, void* stream);
const char* RunFilterOnCuda(const DeformProblem& problem,
                            const DeformArgs& args, void* workspace,
                            void* stream);

const char* RefuseOnCuda(const DeformProblem& problem) {
  return CudaRefusal(problem);
}

int64_t CudaWorkspace(const DeformProblem& problem) {
  return CudaWorkspaceBytes(problem);
}

const char* RunOnCuda(const DeformProblem& problem, const DeformArgs& args,
                      void* workspace, void* stream) {
  switch (problem.pass) {
    case Pass::kForward:
      return CudaRunPass<CudaForwardPass>(problem, args, workspace,
                                          cuda::Stream(stream));
    case Pass::kInputGradient:
      return RunImageOnCuda(problem, args, workspace, stream);
    case Pass::kFilterGradient:
      break;
  }
  return RunFilterOnCuda(problem, args, workspace, stream);
}

}  // namespace kconv::deformable
