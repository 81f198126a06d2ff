// The samples of all points, in device memory: every pass reads them several
// times.

#ifndef KCONV_DEFORMABLE_CUDA_LOCATE_H_
#define KCONV_DEFORMABLE_CUDA_LOCATE_H_

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/phases.h"
#include "deformable/cuda_tile.h"
#include "deformable/sampling.h"
#include "half.h"

namespace kconv::deformable {

// Samples with the same upper left pixel, in or about the image, are a cell.
// The last cell of a row and the first one, which lies outside, of the next row
// are the same: the corners that lie in the image tell them apart.
KCONV_HOST_DEVICE inline int64_t CudaCells(const Window& w) {
  return (w.input[0] + 1) * w.input[1] + 1;
}

// A thread a sample. Samples are numbered as the mask: [pixel][group][tap].
template <typename Element>
struct CudaLocate {
  using Sum = SumType<Element>;
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  Window window;
  int32_t taps, count;
  const Element* offsets;
  const Element* mask;  // or null
  Sample<Sum>* samples;
  // For the gradients by the image, else null: the cell, and the gradients by
  // dy, dx and the mask before anything is added to them.
  int32_t* cells;
  Sum* gradients;

  cuda::Launch Launch() const {
    return {(count + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const auto number =
        static_cast<int32_t>(thread.block * thread.count + thread.index);
    if (number >= count) return;
    const Window& w = window;
    const auto groups = static_cast<int32_t>(w.offset_groups);
    const auto columns = static_cast<int32_t>(w.output[1]);
    const auto rows = static_cast<int32_t>(w.output[0]);
    const auto of_row = static_cast<int32_t>(w.kernel[1]);
    const int32_t tap = number % taps, group = number / taps % groups;
    const int32_t pixel = number / taps / groups;
    const int32_t x = pixel % columns, y = pixel / columns % rows;
    const int32_t image = pixel / columns / rows;
    const int64_t at_y =
        y * w.stride[0] - w.pad[0] + tap / of_row * w.dilation[0];
    const int64_t at_x =
        x * w.stride[1] - w.pad[1] + tap % of_row * w.dilation[1];
    const int64_t first = image * w.input[0] * w.input[1];
    const Sample<Sum> s = Locate<Sum>(
        static_cast<Sum>(at_y) + Widen(offsets[int64_t{2} * number]),
        static_cast<Sum>(at_x) + Widen(offsets[int64_t{2} * number + 1]),
        mask == nullptr ? Sum(1) : Widen(mask[number]), w.input[0], w.input[1],
        first);
    samples[number] = s;
    if (cells == nullptr) return;
    // What reads nothing comes last.
    cells[number] = static_cast<int32_t>(
        s.inside == 0 ? w.offset_groups * CudaCells(w)
                      : group * CudaCells(w) + s.at - first + w.input[1] + 1);
    for (int i = 0; i < 3; ++i) {
      gradients[int64_t{3} * number + i] = IsNan(s) ? s.y : Sum(0);
    }
  }
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_LOCATE_H_
