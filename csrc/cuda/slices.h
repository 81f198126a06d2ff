// The end of a sum that was cut into slices, on the GPU: what ../slices.h is to
// the CPU. No atomics, so that the bits are the same in every run.

#ifndef KCONV_CUDA_SLICES_H_
#define KCONV_CUDA_SLICES_H_

#include <algorithm>
#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "half.h"

namespace kconv::cuda {

// to[e] = the sum over slices s of partials[s * elements + e]. A thread takes
// slices s, s + kLanes, ... into each of its lanes, and adds those in pairs.
template <typename Element>
struct AddSlices {
  using Sum = SumType<Element>;
  using State = NoState;
  static constexpr int kMostThreads = 256;
  static constexpr int kLanes = 8;

  const Sum* partials;
  int64_t slices, elements;
  Element* to;

  cuda::Launch Launch() const {
    return {(elements + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const Thread& thread, void*,
                              State*) const {
    const int64_t e = thread.block * thread.count + thread.index;
    if (e >= elements) return;
    Sum lane[kLanes] = {};
    const Sum* from = partials + e;
    int64_t s = 0;
    for (; s + kLanes <= slices; s += kLanes) {
      KCONV_UNROLL
      for (int l = 0; l < kLanes; ++l) lane[l] += from[(s + l) * elements];
    }
    KCONV_UNROLL
    for (int l = 0; l < kLanes; ++l) {
      if (s + l < slices) lane[l] += from[(s + l) * elements];
    }
    KCONV_UNROLL
    for (int width = kLanes / 2; width > 0; width /= 2) {
      KCONV_UNROLL
      for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    Narrow(lane[0], to + e);
  }
};

// How many slices a sum over `parts` is cut into so that about `wanted` blocks
// have work, where each slice keeps the GPU's `blocks` busy and leaves partial
// results of `bytes`. Depends on the problem only, never on the GPU.
inline int64_t SliceCount(int64_t parts, int64_t blocks, int64_t wanted,
                          int64_t bytes) {
  constexpr int64_t kMostBytes = int64_t{64} << 20;
  const int64_t most =
      std::min(parts, kMostBytes / std::max<int64_t>(1, bytes));
  return std::clamp<int64_t>(wanted / std::max<int64_t>(1, blocks), 1,
                             std::max<int64_t>(1, most));
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_SLICES_H_
