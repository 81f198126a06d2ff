// The sliding window by its definition: every shape, pass and type.

#ifndef KCONV_ALGORITHMS_DIRECT_DIRECT_H_
#define KCONV_ALGORITHMS_DIRECT_DIRECT_H_

#include <stdint.h>

#include "activation.h"
#include "half.h"
#include "isa.h"

namespace kconv::direct {

constexpr int kBlock = 32;  // sums at a time: two to eight vectors

// ConvShape with the layout spelled out as strides, counted in elements.
struct Window {
  int64_t batch, groups;
  int64_t in_channels, out_channels;  // of a group
  int64_t input[3], kernel[3], stride[3], dilation[3], pad[3], output[3];
  int64_t input_image, input_pixel, input_channel;
  int64_t output_image, output_pixel, output_channel;
};

// Each computes items [begin, end) of its result. An item is
//   forward          a pixel of the output, numbered through the batch
//   input_gradient   a pixel of the input
//   filter_gradient  a (tap, channel) pair: a row of the filter
template <typename Element>
struct Kernel {
  const char* isa;
  void (*forward)(const Window&, const Element* input, const Element* filter,
                  const Element* bias, Activation activation, Element* output,
                  int64_t begin, int64_t end);
  void (*input_gradient)(const Window&, Element* input, const Element* filter,
                         const Element* bias, Activation activation,
                         const Element* output, int64_t begin, int64_t end);
  void (*filter_gradient)(const Window&, const Element* input, Element* filter,
                          const Element* output, int64_t begin, int64_t end);
};

struct Kernels {
  Kernel<float> float32;
  Kernel<double> float64;
  Kernel<BFloat16> bfloat16;
  Kernel<Float16> float16;
};

}  // namespace kconv::direct

#endif  // KCONV_ALGORITHMS_DIRECT_DIRECT_H_
