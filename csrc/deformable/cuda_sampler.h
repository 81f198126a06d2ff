// Values of the image between its pixels: columns of the matrix, taps x
// channels of a group, that no pass ever has as a whole.

#ifndef KCONV_DEFORMABLE_CUDA_SAMPLER_H_
#define KCONV_DEFORMABLE_CUDA_SAMPLER_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "deformable/cuda_four.h"
#include "deformable/sampling.h"
#include "half.h"

namespace kconv::deformable {

// value[j] = the mask times what channel + j has at a sample, for kCount of
// them side by side; four of them are loaded at once.
template <int kCount, typename Element, typename Sum>
KCONV_HOST_DEVICE inline void SampleChannels(const Element* input,
                                             int64_t channels, int64_t width,
                                             const Sample<Sum>& s,
                                             int64_t channel, Sum* value) {
  Sum weight[kCorners], corner[kCorners][kCount];
  CornerWeights(s, weight);
  const int64_t at = s.at * channels + channel;
  KCONV_UNROLL
  for (int k = 0; k < kCorners; ++k) {
    KCONV_UNROLL
    for (int j = 0; j < kCount; ++j) corner[k][j] = 0;
    if (!IsRead(s, weight, k)) continue;
    const Element* pixel = input + (at + CornerPixel(0, k, width) * channels);
    if constexpr (kCount == 4) {
      LoadFour(pixel, 4, true, corner[k]);
    } else {
      corner[k][0] = Widen(pixel[0]);
    }
  }
  KCONV_UNROLL
  for (int j = 0; j < kCount; ++j) {
    const Sum upper = weight[0] * corner[0][j] + weight[1] * corner[1][j];
    const Sum lower = weight[2] * corner[2][j] + weight[3] * corner[3][j];
    value[j] = s.mask * (upper + lower);
  }
}

template <typename Element>
struct CudaSampler {
  using Sum = SumType<Element>;

  const Element* input;
  const Sample<Sum>* samples;
  int64_t channels, width;  // of the image
  int64_t taps, points;     // of the kernel, and samples of an output pixel
  int32_t group_channels, offset_group_channels;
  int32_t columns;  // taps x channels of a group
  bool whole;       // four columns are of one sample, and aligned

  // Columns [column, column + 4) of a group at an output pixel; those past the
  // last are 0.
  KCONV_HOST_DEVICE void Fetch(int64_t pixel, int64_t group, int32_t column,
                               Sum* value) const {
    const Sample<Sum>* of_pixel = samples + pixel * points;
    const int64_t first = group * group_channels;
    if (whole) {
      if (column < columns) {
        const int32_t tap = column / group_channels;
        const int64_t channel = first + (column - tap * group_channels);
        SampleChannels<4>(input, channels, width,
                          of_pixel[Number(channel, tap)], channel, value);
      } else {
        KCONV_UNROLL
        for (int j = 0; j < 4; ++j) value[j] = 0;
      }
      return;
    }
    KCONV_UNROLL
    for (int j = 0; j < 4; ++j) {
      value[j] = 0;
      if (column + j < columns) {
        const int32_t tap = (column + j) / group_channels;
        const int64_t channel = first + (column + j - tap * group_channels);
        SampleChannels<1>(input, channels, width,
                          of_pixel[Number(channel, tap)], channel, value + j);
      }
    }
  }

 private:
  KCONV_HOST_DEVICE int64_t Number(int64_t channel, int32_t tap) const {
    return static_cast<int32_t>(channel) / offset_group_channels * taps + tap;
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_SAMPLER_H_
