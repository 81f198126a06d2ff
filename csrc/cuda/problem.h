// The structs of kconv_cuda.h as the core's problems.

#ifndef KCONV_CUDA_PROBLEM_H_
#define KCONV_CUDA_PROBLEM_H_

#include <initializer_list>
#include <string>

#include "conv.h"
#include "cuda/kconv_cuda.h"
#include "deformable/deformable.h"

namespace kconv::cuda {

struct Enumerated {
  const char* name;
  int32_t value, least, most;
};

// The empty string, or a sentence of the first number that is out of range.
inline std::string CheckRanges(std::initializer_list<Enumerated> numbers) {
  for (const Enumerated& n : numbers) {
    if (n.value < n.least || n.value > n.most) {
      return std::string(n.name) + " must be from " + std::to_string(n.least) +
             " to " + std::to_string(n.most) + ". Received: " + n.name + "=" +
             std::to_string(n.value);
    }
  }
  return "";
}

inline constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64,
                                    DType::kBFloat16, DType::kFloat16};
inline constexpr Pass kPasses[] = {Pass::kForward, Pass::kInputGradient,
                                   Pass::kFilterGradient};
inline constexpr Activation kActivations[] = {
    Activation::kNone, Activation::kRelu, Activation::kRelu6};

// Fills `problem`. Returns the empty string, or a sentence that says what is
// wrong.
inline std::string ProblemOf(const kconv_cuda_problem& from, Problem* problem) {
  const std::string error =
      CheckRanges({{"pass", from.pass, 0, 2},
                   {"dtype", from.dtype, 0, 3},
                   {"layout", from.layout, 0, 1},
                   {"dimensions", from.dimensions, 1, 3},
                   {"has_bias", from.has_bias, 0, 1},
                   {"activation", from.activation, 0, 2}});
  if (!error.empty()) return error;
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

// The same of a deformable convolution.
inline std::string DeformProblemOf(const kconv_cuda_deform& from,
                                   DeformProblem* problem) {
  const std::string error = CheckRanges({{"pass", from.pass, 0, 2},
                                         {"dtype", from.dtype, 0, 3},
                                         {"has_mask", from.has_mask, 0, 1},
                                         {"has_bias", from.has_bias, 0, 1},
                                         {"activation", from.activation, 0, 2},
                                         {"reserved", from.reserved, 0, 0}});
  if (!error.empty()) return error;
  problem->pass = kPasses[from.pass];
  problem->dtype = kDTypes[from.dtype];
  problem->mask = from.has_mask != 0;
  problem->epilogue.bias = from.has_bias != 0;
  problem->epilogue.activation = kActivations[from.activation];
  if (problem->pass != Pass::kForward && !problem->epilogue.Empty()) {
    return "A bias or an activation follows the forward pass only. Received: "
           "pass=" +
           std::to_string(from.pass);
  }
  ConvShape& s = problem->shape.conv;
  s.layout = Layout::kChannelsLast;
  s.spatial_dims = 2;
  s.batch = from.batch;
  s.in_channels = from.in_channels;
  s.out_channels = from.out_channels;
  s.groups = from.groups;
  for (int i = 0; i < 2; ++i) {
    const int at = kMaxSpatialDims - 2 + i;
    s.input[at] = from.input[i];
    s.kernel[at] = from.kernel[i];
    s.stride[at] = from.stride[i];
    s.dilation[at] = from.dilation[i];
    s.pad_before[at] = from.pad_before[i];
    s.pad_after[at] = from.pad_after[i];
  }
  problem->shape.offset_groups = from.offset_groups;
  return CompleteDeformShape(&problem->shape);
}

inline DeformArgs DeformArgsOf(const kconv_cuda_deform_arguments& from) {
  DeformArgs args;
  args.input = from.input;
  args.filter = from.filter;
  args.offsets = from.offsets;
  args.mask = from.mask;
  args.bias = from.bias;
  args.output = from.output;
  args.result = from.result;
  args.offsets_gradient = from.offsets_gradient;
  args.mask_gradient = from.mask_gradient;
  return args;
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_PROBLEM_H_
