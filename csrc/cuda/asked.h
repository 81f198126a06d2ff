// The core's problems as the structs of kconv_cuda.h: the inverse of problem.h.

#ifndef KCONV_CUDA_ASKED_H_
#define KCONV_CUDA_ASKED_H_

#include "conv.h"
#include "cuda/kconv_cuda.h"
#include "deformable/deformable.h"

namespace kconv::cuda {

inline int32_t NumberOf(Pass pass) {
  return pass == Pass::kForward ? 0 : pass == Pass::kInputGradient ? 1 : 2;
}

inline int32_t NumberOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 0;
    case DType::kFloat64:
      return 1;
    case DType::kBFloat16:
      return 2;
    case DType::kFloat16:
      break;
  }
  return 3;
}

inline int32_t NumberOf(Activation activation) {
  return activation == Activation::kNone   ? 0
         : activation == Activation::kRelu ? 1
                                           : 2;
}

inline kconv_cuda_problem AskedOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  kconv_cuda_problem asked = {};
  asked.pass = NumberOf(problem.pass);
  asked.dtype = NumberOf(problem.dtype);
  asked.layout = s.layout == Layout::kChannelsLast ? 0 : 1;
  asked.dimensions = s.spatial_dims;
  asked.has_bias = problem.epilogue.bias;
  asked.activation = NumberOf(problem.epilogue.activation);
  asked.batch = s.batch;
  asked.in_channels = s.in_channels;
  asked.out_channels = s.out_channels;
  asked.groups = s.groups;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    asked.input[i] = s.input[i];
    asked.kernel[i] = s.kernel[i];
    asked.stride[i] = s.stride[i];
    asked.dilation[i] = s.dilation[i];
    asked.pad_before[i] = s.pad_before[i];
    asked.pad_after[i] = s.pad_after[i];
  }
  return asked;
}

inline kconv_cuda_deform AskedOf(const DeformProblem& problem) {
  const ConvShape& s = problem.shape.conv;
  kconv_cuda_deform asked = {};
  asked.pass = NumberOf(problem.pass);
  asked.dtype = NumberOf(problem.dtype);
  asked.has_mask = problem.mask;
  asked.has_bias = problem.epilogue.bias;
  asked.activation = NumberOf(problem.epilogue.activation);
  asked.batch = s.batch;
  asked.in_channels = s.in_channels;
  asked.out_channels = s.out_channels;
  asked.groups = s.groups;
  asked.offset_groups = problem.shape.offset_groups;
  for (int i = 0; i < 2; ++i) {
    const int at = kMaxSpatialDims - 2 + i;
    asked.input[i] = s.input[at];
    asked.kernel[i] = s.kernel[at];
    asked.stride[i] = s.stride[at];
    asked.dilation[i] = s.dilation[at];
    asked.pad_before[i] = s.pad_before[at];
    asked.pad_after[i] = s.pad_after[at];
  }
  return asked;
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_ASKED_H_
