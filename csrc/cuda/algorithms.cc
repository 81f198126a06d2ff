#include "cuda/algorithms.h"

#include "algorithms/depthwise/cuda.h"
#include "algorithms/direct/cuda.h"
#include "algorithms/gemm/cuda.h"
#include "algorithms/grouped/cuda.h"

namespace kconv::cuda {

const GpuAlgorithm kGpuAlgorithms[] = {
    {"depthwise", depthwise::RefuseOnCuda, depthwise::CudaWorkspace,
     depthwise::RunOnCuda},
    {"grouped", grouped::RefuseOnCuda, grouped::CudaWorkspace,
     grouped::RunOnCuda},
    {"gemm", gemm::RefuseOnCuda, gemm::CudaWorkspace, gemm::RunOnCuda},
    {"direct", nullptr, direct::CudaWorkspace, direct::RunOnCuda},
    {nullptr, nullptr, nullptr, nullptr}};

}  // namespace kconv::cuda
