// Winograd convolution on a GPU: F(2x2, 3x3) and F(4x4, 3x3).

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_H_

#include <cstdint>

#include "conv.h"

namespace kconv::winograd {

// Null, or a sentence: why it cannot take a problem. kOutputs an axis: 2 or 4.
template <int kOutputs>
const char* RefuseOnCuda(const Problem& problem);

// Bytes of workspace.
template <int kOutputs>
int64_t CudaWorkspace(const Problem& problem);

// All pointers are the device's; returns when the work is on the stream, with
// null or a sentence of CUDA's.
template <int kOutputs>
const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream);

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_H_
