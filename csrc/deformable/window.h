// DeformShape as sampling.h takes it.

#ifndef KCONV_DEFORMABLE_WINDOW_H_
#define KCONV_DEFORMABLE_WINDOW_H_

#include "deformable/deformable.h"
#include "deformable/sampling.h"

namespace kconv::deformable {

inline Window WindowOf(const DeformShape& shape) {
  const ConvShape& s = shape.conv;
  Window w;
  for (int i = 0; i < 2; ++i) {
    const int at = kMaxSpatialDims - 2 + i;
    w.input[i] = s.input[at];
    w.output[i] = s.output[at];
    w.kernel[i] = s.kernel[at];
    w.stride[i] = s.stride[at];
    w.dilation[i] = s.dilation[at];
    w.pad[i] = s.pad_before[at];
  }
  w.channels = s.in_channels;
  w.offset_groups = shape.offset_groups;
  w.offset_group_channels = shape.OffsetGroupChannels();
  return w;
}

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_WINDOW_H_
