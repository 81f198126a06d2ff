// kconv_cuda_problem as the core's Problem, and back.

#ifndef KCONV_CUDA_PROBLEM_H_
#define KCONV_CUDA_PROBLEM_H_

#include <string>

#include "conv.h"
#include "cuda/kconv_cuda.h"

namespace kconv::cuda {

// Fills `problem`. Returns the empty string, or a sentence that says what is
// wrong.
inline std::string ProblemOf(const kconv_cuda_problem& from, Problem* problem) {
  const struct {
    const char* name;
    int32_t value, least, most;
  } numbers[] = {
      {"pass", from.pass, 0, 2},         {"dtype", from.dtype, 0, 3},
      {"layout", from.layout, 0, 1},     {"dimensions", from.dimensions, 1, 3},
      {"has_bias", from.has_bias, 0, 1}, {"activation", from.activation, 0, 2}};
  for (const auto& n : numbers) {
    if (n.value < n.least || n.value > n.most) {
      return std::string(n.name) + " must be from " + std::to_string(n.least) +
             " to " + std::to_string(n.most) + ". Received: " + n.name + "=" +
             std::to_string(n.value);
    }
  }
  constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64,
                               DType::kBFloat16, DType::kFloat16};
  constexpr Pass kPasses[] = {Pass::kForward, Pass::kInputGradient,
                              Pass::kFilterGradient};
  constexpr Activation kActivations[] = {Activation::kNone, Activation::kRelu,
                                         Activation::kRelu6};
  problem->device = Device::kGpu;
  problem->pass = kPasses[from.pass];
  problem->dtype = kDTypes[from.dtype];
  problem->epilogue.bias = from.has_bias != 0;
  problem->epilogue.activation = kActivations[from.activation];
  if (problem->pass == Pass::kFilterGradient && !problem->epilogue.Empty()) {
    return "A bias or an activation follows the passes that write an image "
           "only. Received: pass=2";
  }
  ConvShape& s = problem->shape;
  s.layout = from.layout == 0 ? Layout::kChannelsLast : Layout::kChannelsFirst;
  s.spatial_dims = from.dimensions;
  s.batch = from.batch;
  s.in_channels = from.in_channels;
  s.out_channels = from.out_channels;
  s.groups = from.groups;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    s.input[i] = from.input[i];
    s.kernel[i] = from.kernel[i];
    s.stride[i] = from.stride[i];
    s.dilation[i] = from.dilation[i];
    s.pad_before[i] = from.pad_before[i];
    s.pad_after[i] = from.pad_after[i];
  }
  return CompleteShape(&s);
}

// The inverse; the shape's output is left out.
inline kconv_cuda_problem AskedOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  kconv_cuda_problem asked = {};
  asked.pass = problem.pass == Pass::kForward         ? 0
               : problem.pass == Pass::kInputGradient ? 1
                                                      : 2;
  asked.dtype = problem.dtype == DType::kFloat32    ? 0
                : problem.dtype == DType::kFloat64  ? 1
                : problem.dtype == DType::kBFloat16 ? 2
                                                    : 3;
  asked.layout = s.layout == Layout::kChannelsLast ? 0 : 1;
  asked.dimensions = s.spatial_dims;
  asked.has_bias = problem.epilogue.bias;
  asked.activation = problem.epilogue.activation == Activation::kNone   ? 0
                     : problem.epilogue.activation == Activation::kRelu ? 1
                                                                        : 2;
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

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_PROBLEM_H_
