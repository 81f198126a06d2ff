// Implicit matrix products on a GPU.

#ifndef KCONV_ALGORITHMS_GEMM_CUDA_H_
#define KCONV_ALGORITHMS_GEMM_CUDA_H_

#include <cstdint>

#include "conv.h"

namespace kconv::gemm {

// Null, or a sentence: why it cannot take a problem.
const char* RefuseOnCuda(const Problem& problem);

// Bytes of workspace.
int64_t CudaWorkspace(const Problem& problem);

// All pointers are the device's; returns when the work is on the stream, with
// null or a sentence of CUDA's.
const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream);

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_CUDA_H_
