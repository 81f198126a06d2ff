#include "correction/features.h"

#include <algorithm>
#include <cmath>

#include "split.h"

namespace kconv::correction {

std::vector<float> FeaturesOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  constexpr int kLast = kMaxSpatialDims - 1;
  const double images =
      static_cast<double>(s.InputElements() + s.OutputElements());
  const double filter = static_cast<double>(s.FilterElements());
  const double macs = problem.Macs();
  const int64_t stride = *std::max_element(s.stride, s.stride + 3);
  const int64_t dilation = *std::max_element(s.dilation, s.dilation + 3);
  const int64_t kernel = *std::max_element(s.kernel, s.kernel + 3);
  const int64_t padding =
      std::max(*std::max_element(s.pad_before, s.pad_before + 3),
               *std::max_element(s.pad_after, s.pad_after + 3));

  std::vector<float> features;
  auto add = [&](double value) {
    features.push_back(static_cast<float>(value));
  };
  for (const int64_t size :
       {s.batch, s.InputPixels(), s.OutputPixels(), s.GroupInChannels(),
        s.GroupOutChannels(), s.in_channels, s.out_channels, s.groups,
        s.KernelTaps(), s.kernel[kLast], s.input[kLast], s.output[kLast],
        dilation}) {
    add(std::log2(static_cast<double>(size)));
  }
  for (const double size : {images, filter, macs, macs / (images + filter)}) {
    add(std::log2(size));
  }
  // Vectors and tiles are filled up.
  struct {
    int64_t size, multiple;
  } const rounded[] = {{s.out_channels, 16},      {s.in_channels, 16},
                       {s.out_channels, 64},      {s.in_channels, 64},
                       {s.GroupInChannels(), 16}, {s.GroupOutChannels(), 16},
                       {s.output[kLast], 4},      {s.output[kLast], 6},
                       {s.input[kLast], 4},       {s.input[kLast], 6}};
  for (const auto& r : rounded) {
    add(std::log2(static_cast<double>(RoundUp(r.size, r.multiple)) /
                  static_cast<double>(r.size)));
  }
  for (const bool property :
       {s.layout == Layout::kChannelsFirst, stride == 2, stride > 2,
        stride > 1 && stride >= kernel, dilation > 1, padding > 0,
        s.spatial_dims == 1, s.spatial_dims == 3, s.groups > 1,
        s.groups > 1 && s.GroupInChannels() == 1, s.KernelTaps() == 1,
        s.in_channels < 8, s.out_channels < 16,
        problem.dtype == DType::kFloat64, problem.dtype == DType::kBFloat16,
        problem.dtype == DType::kFloat16, problem.pass == Pass::kForward,
        problem.pass == Pass::kInputGradient,
        problem.pass == Pass::kFilterGradient}) {
    add(property ? 1 : 0);
  }
  return features;
}

}  // namespace kconv::correction
