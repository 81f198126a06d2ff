#include "cuda/algorithms.h"

#include "algorithms/depthwise/cuda.h"
#include "algorithms/direct/cuda.h"
#include "algorithms/gemm/cuda.h"
#include "algorithms/grouped/cuda.h"
#include "algorithms/winograd/cuda.h"

namespace kconv::cuda {

const GpuAlgorithm kGpuAlgorithms[] = {
    {"depthwise", depthwise::RefuseOnCuda, depthwise::CudaWorkspace,
     depthwise::RunOnCuda},
    {"winograd:f4", winograd::RefuseOnCuda<4>, winograd::CudaWorkspace<4>,
     winograd::RunOnCuda<4>, /*is_strict=*/false},
    {"winograd:f2", winograd::RefuseOnCuda<2>, winograd::CudaWorkspace<2>,
     winograd::RunOnCuda<2>, /*is_strict=*/false},
    {"grouped", grouped::RefuseOnCuda, grouped::CudaWorkspace,
     grouped::RunOnCuda},
    {"gemm", gemm::RefuseOnCuda, gemm::CudaWorkspace, gemm::RunOnCuda},
    {"direct", nullptr, direct::CudaWorkspace, direct::RunOnCuda},
    {nullptr, nullptr, nullptr, nullptr}};

}  // namespace kconv::cuda
