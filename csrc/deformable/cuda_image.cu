#include "cuda/launch.cuh"
#include "deformable/cuda_run.h"

namespace kconv::deformable {

const char* RunImageOnCuda(const DeformProblem& problem, const DeformArgs& args,
                           void* workspace, void* stream);

const char* RunImageOnCuda(const DeformProblem& problem, const DeformArgs& args,
                           void* workspace, void* stream) {
  return CudaRunPass<CudaImagePass>(problem, args, workspace,
                                    cuda::Stream(stream));
}

}  // namespace kconv::deformable
