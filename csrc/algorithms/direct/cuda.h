// The sliding window on a GPU: every shape, pass and type.

#ifndef KCONV_ALGORITHMS_DIRECT_CUDA_H_
#define KCONV_ALGORITHMS_DIRECT_CUDA_H_

#include <cstdint>

#include "conv.h"

namespace kconv::direct {

// Bytes of workspace.
int64_t CudaWorkspace(const Problem& problem);

// All pointers are the device's; returns when the work is on the stream, with
// null or a sentence of CUDA's.
const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream);

}  // namespace kconv::direct

#endif  // KCONV_ALGORITHMS_DIRECT_CUDA_H_
