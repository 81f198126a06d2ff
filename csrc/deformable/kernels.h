// What is written for an instruction set: all between the tensors and the
// packed matrix products.

#ifndef KCONV_DEFORMABLE_KERNELS_H_
#define KCONV_DEFORMABLE_KERNELS_H_

#include <stdint.h>

#include "deformable/sampling.h"
#include "half.h"

namespace kconv::deformable {

// The samples of a block of output pixels, for some offset groups and taps: an
// array [pixels][groups][taps].
struct Points {
  int64_t first_pixel, pixels;  // numbered through the batch
  int64_t first_group, groups;
  int64_t first_tap, taps;

  int64_t OfPixel() const { return groups * taps; }
  int64_t Index(int64_t i, int64_t group, int64_t tap) const {
    return (i * groups + group - first_group) * taps + tap - first_tap;
  }
};

// Columns [begin, end) of taps x channels, channels fastest: of the channels
// [first, first + count) of the input.
struct Columns {
  int64_t first, count;
  int64_t begin, end;
};

// An image's gradient: that of the pixel p and the channel c is at
// data[(p - first_pixel) * stride + c - first_channel].
template <typename T>
struct Plane {
  T* data;
  int64_t first_pixel, first_channel, stride;
};

template <typename Element>
struct Kernel {
  using Sum = SumType<Element>;
  const char* isa;

  // The samples of points; the mask may be null.
  void (*locate)(const Window&, const Points&, const Element* offsets,
                 const Element* mask, Sample<Sum>* samples);

  // to[i * stride + k - begin] = the value of column k at the block's pixel i.
  void (*gather)(const Window&, const Points&, const Columns&,
                 const Element* input, const Sample<Sum>* samples, Sum* to,
                 int64_t stride);

  // From the gradients by these values: adds what they give the image to
  // `plane`, and what they give the offsets and the mask to gradients[3 *
  // Index(...)], in the order dy, dx, mask.
  void (*scatter)(const Window&, const Points&, const Columns&,
                  const Element* input, const Sample<Sum>* samples,
                  const Sum* from, int64_t stride, const Plane<Sum>& plane,
                  Sum* gradients);
};

struct Kernels {
  Kernel<float> float32;
  Kernel<double> float64;
  Kernel<BFloat16> bfloat16;
  Kernel<Float16> float16;
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_KERNELS_H_
