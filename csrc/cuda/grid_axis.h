// One axis of a convolution, seen from the tensor that is written: what axis.h
// is to the CPU, in numbers that a thread of a GPU can compute with.

#ifndef KCONV_CUDA_GRID_AXIS_H_
#define KCONV_CUDA_GRID_AXIS_H_

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "conv.h"
#include "cuda/host_device.h"
#include "split.h"

namespace kconv::cuda {

// The written places of one remainder modulo the stride of an input gradient,
// which meet the same taps; all places in the other passes. Place number j is
// first + pitch j and its u-th tap, tap + tap_step u of the kernel, meets
// from + stride j + step u, which may lie outside.
struct Phase {
  int first = 0;
  int taps = 0, tap = 0;
  int from = 0;
};

// Sizes are those of problems that SizesRefusal lets pass.
struct GridAxis {
  int written = 1, read = 1, kernel = 1;
  int phases = 1;  // that have places
  int grid = 1;    // places of the first phase; later ones may have one less
  int pitch = 1, stride = 1, step = 1, tap_step = 1;
  int dilation = 1, pad = 0;

  GridAxis() = default;
  // Forward and filter gradient write outputs and read inputs here.
  GridAxis(const ConvShape& s, Pass pass, int dim) {
    const bool gradient = pass == Pass::kInputGradient;
    const int stride_of = static_cast<int>(s.stride[dim]);
    written = static_cast<int>(gradient ? s.input[dim] : s.output[dim]);
    read = static_cast<int>(gradient ? s.output[dim] : s.input[dim]);
    kernel = static_cast<int>(s.kernel[dim]);
    // A single tap has none.
    dilation = kernel > 1 ? static_cast<int>(s.dilation[dim]) : 1;
    pad = static_cast<int>(s.pad_before[dim]);
    if (gradient) {
      const int common = std::gcd(stride_of, dilation);
      pitch = stride_of;
      phases = std::min(stride_of, written);
      grid = static_cast<int>(CeilDivide(written, stride_of));
      step = dilation / common;
      tap_step = -(stride_of / common);
    } else {
      grid = written;
      stride = stride_of;
      step = dilation;
    }
  }

  KCONV_HOST_DEVICE Phase At(int number) const {
    Phase phase;
    phase.first = number;
    if (tap_step > 0) {
      phase.taps = kernel;
      phase.from = -pad;
      return phase;
    }
    // Place i meets tap k at (i + pad - k dilation) / pitch, of every
    // -tap_step-th k, if of any. Last tap first, so that places ascend.
    const int apart = -tap_step;
    const int most = kernel < apart ? kernel : apart;
    int tap = 0;
    while (tap < most && (number + pad - tap * dilation) % pitch != 0) ++tap;
    if (tap == most) return phase;
    phase.taps = (kernel - 1 - tap) / apart + 1;
    phase.tap = tap + apart * (phase.taps - 1);
    phase.from = (number + pad - phase.tap * dilation) / pitch;
    return phase;
  }
};

// Whether an algorithm of two dimensions must heed the first one. Padding may
// be all that a single output of depth 1 reads.
inline bool HasDepth(const ConvShape& s) {
  return s.input[0] != 1 || s.kernel[0] != 1 || s.output[0] != 1 ||
         s.pad_before[0] != 0;
}

// Null, or a sentence: where places would not fit an int.
inline const char* SizesRefusal(const ConvShape& s) {
  constexpr int64_t kMostSize = int64_t{1} << 28;
  for (int dim = 0; dim < kMaxSpatialDims; ++dim) {
    const int64_t reach =
        s.kernel[dim] > 1
            ? CeilDivide(kMostSize, std::max<int64_t>(s.kernel[dim] - 1, 1))
            : kMostSize;
    if (std::max({s.input[dim], s.output[dim], s.kernel[dim], s.stride[dim],
                  s.pad_before[dim], s.pad_after[dim]}) > kMostSize ||
        (s.kernel[dim] > 1 && s.dilation[dim] > reach)) {
      return "GPU kernels take sizes below 268435457 only, but for direct.";
    }
  }
  constexpr int64_t kMost = (int64_t{1} << 31) - 1;
  if (std::max({s.in_channels * s.InputPixels(),
                s.out_channels * s.OutputPixels(), s.FilterElements(),
                s.batch * s.InputPixels(), s.batch * s.OutputPixels()}) >
      kMost) {
    return "GPU kernels take images, filters and pixels of a batch below "
           "2147483648 only, but for direct.";
  }
  return nullptr;
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_GRID_AXIS_H_
