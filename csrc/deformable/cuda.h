// Deformable convolution on a GPU: all passes, types and groups.

#ifndef KCONV_DEFORMABLE_CUDA_H_
#define KCONV_DEFORMABLE_CUDA_H_

#include <cstdint>

#include "deformable/deformable.h"

namespace kconv::deformable {

// Null, or a sentence: why the GPU cannot take a problem.
const char* RefuseOnCuda(const DeformProblem& problem);

// Bytes of workspace.
int64_t CudaWorkspace(const DeformProblem& problem);

// All pointers are the device's; returns when the work is on the stream, with
// null or a sentence of CUDA's. The same bits in every run.
const char* RunOnCuda(const DeformProblem& problem, const DeformArgs& args,
                      void* workspace, void* stream);

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_H_
