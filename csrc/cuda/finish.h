// The arithmetic of Problem::epilogue, one number at a time. epilogue.h is the
// same on vectors of a CPU.

#ifndef KCONV_CUDA_FINISH_H_
#define KCONV_CUDA_FINISH_H_

#include "activation.h"
#include "cuda/host_device.h"

namespace kconv::cuda {

// activation(x); NaN stays NaN, as every comparison with it is false.
template <typename Sum>
KCONV_HOST_DEVICE inline Sum Activate(Sum x, Activation activation) {
  if (activation == Activation::kNone) return x;
  const Sum raised = x < 0 ? Sum(0) : x;
  return activation == Activation::kRelu6 && raised > 6 ? Sum(6) : raised;
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_FINISH_H_
