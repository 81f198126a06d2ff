// Checks of DeformShape, and the work of a problem.

#include <limits>

#include "deformable/deformable.h"

namespace kconv {

std::string CompleteDeformShape(DeformShape* shape) {
  ConvShape& s = shape->conv;
  if (s.spatial_dims != 2) {
    return "A deformable convolution must have two spatial dimensions. "
           "Received: dimensions=" +
           std::to_string(s.spatial_dims);
  }
  if (s.layout != Layout::kChannelsLast) {
    return "A deformable convolution must have its channels last. Received: "
           "layout=channels_first";
  }
  const std::string error = CompleteShape(&s);
  if (!error.empty()) return error;
  if (shape->offset_groups < 1) {
    return "offset_groups must be positive. Received: offset_groups=" +
           std::to_string(shape->offset_groups);
  }
  if (s.in_channels % shape->offset_groups != 0) {
    return "Channels must be divisible by offset_groups. Received: channels=" +
           std::to_string(s.in_channels) +
           ", offset_groups=" + std::to_string(shape->offset_groups);
  }
  // As CompleteShape bounds the other tensors, with room for the gradients by
  // all offsets and masks; empty axes do not make the product of others small.
  constexpr int64_t kMostElements = std::numeric_limits<int64_t>::max() / 64;
  int64_t points = 2;
  for (int64_t factor : {s.batch, s.output[1], s.output[2],
                         shape->offset_groups, s.kernel[1], s.kernel[2]}) {
    if (factor == 0) continue;
    if (__builtin_mul_overflow(points, factor, &points) ||
        points > kMostElements) {
      return "There are too many offsets. Received: offset_groups=" +
             std::to_string(shape->offset_groups) + ", kernel_size=(" +
             std::to_string(s.kernel[1]) + ", " + std::to_string(s.kernel[2]) +
             ")";
    }
  }
  return "";
}

double DeformProblem::Macs() const {
  const ConvShape& s = shape.conv;
  return static_cast<double>(s.OutputElements()) *
         static_cast<double>(s.KernelTaps() * s.GroupInChannels());
}

}  // namespace kconv
