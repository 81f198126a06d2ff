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

// to[e] = the sum over slices s of partials[s * elements + e]. The threads of a
// block take kColumns elements and share the slices, as a filter has few
// elements and many slices: one thread would wait for memory slice by slice.
template <typename Element>
struct AddSlices {
  using Sum = SumType<Element>;
  using State = NoState;
  static constexpr int kColumns = 32;
  static constexpr int kParts = 8;
  static constexpr int kMostThreads = kColumns * kParts;
  static constexpr int kLanes = 4;  // sums of a thread, for loads at one time

  const Sum* partials;
  int64_t slices, elements;
  Element* to;

  cuda::Launch Launch() const {
    return {(elements + kColumns - 1) / kColumns, kMostThreads,
            kMostThreads * static_cast<int64_t>(sizeof(Sum))};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const Thread& thread, void* shared,
                              State*) const {
    const int64_t e = thread.block * kColumns + thread.index % kColumns;
    if (e >= elements) return;
    const int part = thread.index / kColumns;
    Sum* sums = static_cast<Sum*>(shared) + thread.index;
    if (step == 0) {
      *sums = OfPart(partials + e, part);
    } else if (part == 0) {
      Sum sum = *sums;
      KCONV_UNROLL
      for (int i = 1; i < kParts; ++i) sum += sums[i * kColumns];
      Narrow(sum, to + e);
    }
  }

 private:
  // The sum of slices part, part + kParts, ...
  KCONV_HOST_DEVICE Sum OfPart(const Sum* from, int part) const {
    Sum lane[kLanes] = {};
    for (int64_t s = part; s < slices; s += kParts * kLanes) {
      KCONV_UNROLL
      for (int l = 0; l < kLanes; ++l) {
        const int64_t at = s + l * kParts;
        if (at < slices) lane[l] += from[at * elements];
      }
    }
    KCONV_UNROLL
    for (int l = 1; l < kLanes; ++l) lane[0] += lane[l];
    return lane[0];
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
