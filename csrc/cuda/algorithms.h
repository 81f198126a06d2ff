// The algorithms that GPUs have, best first, with the answers of Algorithm in
// conv.h that they need.

#ifndef KCONV_CUDA_ALGORITHMS_H_
#define KCONV_CUDA_ALGORITHMS_H_

#include <cstdint>

#include "conv.h"

namespace kconv::cuda {

struct GpuAlgorithm {
  const char* name;
  const char* (*refuse)(const Problem&);  // or null: it takes everything
  int64_t (*workspace)(const Problem&);
  const char* (*run)(const Problem&, const ConvArgs&, void* workspace,
                     void* stream);
  bool is_strict = true;
};

// Ends with one that has no name.
extern const GpuAlgorithm kGpuAlgorithms[];

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_ALGORITHMS_H_
