// ConvShape as the kernels of direct take it.

#ifndef KCONV_ALGORITHMS_DIRECT_WINDOW_H_
#define KCONV_ALGORITHMS_DIRECT_WINDOW_H_

#include "algorithms/direct/direct.h"
#include "conv.h"

namespace kconv::direct {

inline Window WindowOf(const ConvShape& s) {
  Window w;
  w.batch = s.batch;
  w.groups = s.groups;
  w.in_channels = s.GroupInChannels();
  w.out_channels = s.GroupOutChannels();
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    w.input[i] = s.input[i];
    w.kernel[i] = s.kernel[i];
    w.stride[i] = s.stride[i];
    w.dilation[i] = s.dilation[i];
    w.pad[i] = s.pad_before[i];
    w.output[i] = s.output[i];
  }
  const bool last = s.layout == Layout::kChannelsLast;
  w.input_image = s.in_channels * s.InputPixels();
  w.input_pixel = last ? s.in_channels : 1;
  w.input_channel = last ? 1 : s.InputPixels();
  w.output_image = s.out_channels * s.OutputPixels();
  w.output_pixel = last ? s.out_channels : 1;
  w.output_channel = last ? 1 : s.OutputPixels();
  return w;
}

}  // namespace kconv::direct

#endif  // KCONV_ALGORITHMS_DIRECT_WINDOW_H_
