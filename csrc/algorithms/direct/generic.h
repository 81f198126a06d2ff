// The sliding window, written once; the compiler makes vectors of kBlock output
// channels for the instruction set of the file that includes this.

#ifndef KCONV_ALGORITHMS_DIRECT_GENERIC_H_
#define KCONV_ALGORITHMS_DIRECT_GENERIC_H_

#include "algorithms/direct/direct.h"
#include "epilogue.h"
#include "simd.h"

namespace kconv::direct {
namespace {

// sum[j] += x * row[j * stride].
template <typename Element>
inline void Accumulate(SumType<Element> x, const Element* row, int64_t stride,
                       int64_t count, SumType<Element>* sum) {
  if (stride == 1 && count == kBlock) {
    for (int j = 0; j < kBlock; ++j) sum[j] += x * Widen(row[j]);
  } else {
    for (int64_t j = 0; j < count; ++j) sum[j] += x * Widen(row[j * stride]);
  }
}

// At most kBlock sums of a pixel; the bias may be null.
template <typename Element>
void Finish(const Element* bias, Activation activation, int64_t count,
            SumType<Element>* sum) {
  using Sum = SumType<Element>;
  if (bias == nullptr && activation == Activation::kNone) return;
  Sum add[kBlock] = {};
  if (bias != nullptr) {
    for (int64_t j = 0; j < count; ++j) add[j] = Widen(bias[j]);
  }
  FinishRows<Sum, 16>(activation, add, false, 1, &sum, 0, count);
}

// A row of pixels, numbered through [batch, depth, height].
struct Row {
  int64_t image, d, h;
  Row(int64_t number, const int64_t* size) {
    h = number % size[1];
    number /= size[1];
    d = number % size[0];
    image = number / size[0];
  }
};

inline int64_t Pixel(int64_t d, int64_t h, int64_t w, const int64_t* size) {
  return (d * size[1] + h) * size[2] + w;
}

// Whether `at` is within [0, size).
inline bool Within(int64_t at, int64_t size) { return at >= 0 && at < size; }

template <typename Element>
void Forward(const Window& s, const Element* input, const Element* filter,
             const Element* bias, Activation activation, Element* output,
             int64_t begin, int64_t end) {
  using Sum = SumType<Element>;
  const int64_t filters = s.groups * s.out_channels;
  for (int64_t number = begin; number < end; ++number) {
    const Row row(number / s.output[2], s.output);
    const int64_t x = number % s.output[2];
    const int64_t d0 = row.d * s.stride[0] - s.pad[0];
    const int64_t h0 = row.h * s.stride[1] - s.pad[1];
    const int64_t w0 = x * s.stride[2] - s.pad[2];
    Element* to = output + row.image * s.output_image +
                  Pixel(row.d, row.h, x, s.output) * s.output_pixel;
    for (int64_t g = 0; g < s.groups; ++g) {
      for (int64_t o = 0; o < s.out_channels; o += kBlock) {
        const int64_t count = Min(kBlock, s.out_channels - o);
        const int64_t first = g * s.out_channels + o;
        Sum sum[kBlock] = {};
        int64_t tap = 0;
        for (int64_t i = 0; i < s.kernel[0]; ++i) {
          const int64_t d = d0 + i * s.dilation[0];
          for (int64_t j = 0; j < s.kernel[1]; ++j) {
            const int64_t h = h0 + j * s.dilation[1];
            for (int64_t k = 0; k < s.kernel[2]; ++k, ++tap) {
              const int64_t w = w0 + k * s.dilation[2];
              if (!Within(d, s.input[0]) || !Within(h, s.input[1]) ||
                  !Within(w, s.input[2])) {
                continue;
              }
              const Element* from = input + row.image * s.input_image +
                                    Pixel(d, h, w, s.input) * s.input_pixel +
                                    g * s.in_channels * s.input_channel;
              const Element* weights =
                  filter + tap * s.in_channels * filters + first;
              for (int64_t c = 0; c < s.in_channels; ++c) {
                Accumulate(Widen(from[c * s.input_channel]),
                           weights + c * filters, 1, count, sum);
              }
            }
          }
        }
        Finish(bias == nullptr ? nullptr : bias + first, activation, count,
               sum);
        for (int64_t j = 0; j < count; ++j) {
          Narrow(sum[j], to + (first + j) * s.output_channel);
        }
      }
    }
  }
}

// Sum over j of a[j * stride] * b[j], added to sum[j % kBlock].
template <typename Element>
inline void Dot(const Element* a, int64_t stride, const Element* b,
                int64_t count, SumType<Element>* sum) {
  int64_t j = 0;
  if (stride == 1) {
    for (; j + kBlock <= count; j += kBlock) {
      for (int l = 0; l < kBlock; ++l)
        sum[l] += Widen(a[j + l]) * Widen(b[j + l]);
    }
  }
  for (; j < count; ++j) sum[j % kBlock] += Widen(a[j * stride]) * Widen(b[j]);
}

// The output position whose tap lies on a pixel: at = (pixel + pad - tap *
// dilation) / stride. False where there is none.
inline bool OutputAt(const Window& s, int dim, int64_t pixel, int64_t tap,
                     int64_t* at) {
  const int64_t shifted = pixel + s.pad[dim] - tap * s.dilation[dim];
  if (shifted < 0 || shifted % s.stride[dim] != 0) return false;
  *at = shifted / s.stride[dim];
  return *at < s.output[dim];
}

template <typename Element>
void InputGradient(const Window& s, Element* input, const Element* filter,
                   const Element* bias, Activation activation,
                   const Element* output, int64_t begin, int64_t end) {
  using Sum = SumType<Element>;
  const int64_t filters = s.groups * s.out_channels;
  for (int64_t number = begin; number < end; ++number) {
    const Row row(number / s.input[2], s.input);
    const int64_t x = number % s.input[2];
    Element* to = input + row.image * s.input_image +
                  Pixel(row.d, row.h, x, s.input) * s.input_pixel;
    for (int64_t channel = 0; channel < s.groups * s.in_channels; ++channel) {
      const int64_t g = channel / s.in_channels;
      const int64_t c = channel % s.in_channels;
      Sum sum[kBlock] = {};
      for (int64_t i = 0; i < s.kernel[0]; ++i) {
        int64_t d;
        if (!OutputAt(s, 0, row.d, i, &d)) continue;
        for (int64_t j = 0; j < s.kernel[1]; ++j) {
          int64_t h;
          if (!OutputAt(s, 1, row.h, j, &h)) continue;
          for (int64_t k = 0; k < s.kernel[2]; ++k) {
            int64_t w;
            if (!OutputAt(s, 2, x, k, &w)) continue;
            const int64_t tap = Pixel(i, j, k, s.kernel);
            Dot(output + row.image * s.output_image +
                    Pixel(d, h, w, s.output) * s.output_pixel +
                    g * s.out_channels * s.output_channel,
                s.output_channel,
                filter + (tap * s.in_channels + c) * filters +
                    g * s.out_channels,
                s.out_channels, sum);
          }
        }
      }
      for (int width = kBlock / 2; width > 0; width /= 2) {
        for (int j = 0; j < width; ++j) sum[j] += sum[j + width];
      }
      Finish(bias == nullptr ? nullptr : bias + channel, activation, 1, sum);
      Narrow(sum[0], to + channel * s.input_channel);
    }
  }
}

template <typename Element>
void FilterGradient(const Window& s, const Element* input, Element* filter,
                    const Element* output, int64_t begin, int64_t end) {
  using Sum = SumType<Element>;
  const int64_t filters = s.groups * s.out_channels;
  for (int64_t number = begin; number < end; ++number) {
    const int64_t c = number % s.in_channels;
    const int64_t tap = number / s.in_channels;
    const Row place(tap / s.kernel[2], s.kernel);  // image is 0
    const int64_t offset_d = place.d * s.dilation[0] - s.pad[0];
    const int64_t offset_h = place.h * s.dilation[1] - s.pad[1];
    const int64_t offset_w = tap % s.kernel[2] * s.dilation[2] - s.pad[2];
    for (int64_t g = 0; g < s.groups; ++g) {
      for (int64_t o = 0; o < s.out_channels; o += kBlock) {
        const int64_t count = Min(kBlock, s.out_channels - o);
        const int64_t first = g * s.out_channels + o;
        Sum total[kBlock] = {};
        for (int64_t r = 0; r < s.batch * s.output[0] * s.output[1]; ++r) {
          const Row row(r, s.output);
          const int64_t d = row.d * s.stride[0] + offset_d;
          const int64_t h = row.h * s.stride[1] + offset_h;
          if (!Within(d, s.input[0]) || !Within(h, s.input[1])) continue;
          const Element* from = input + row.image * s.input_image +
                                (g * s.in_channels + c) * s.input_channel;
          const Element* gradient =
              output + row.image * s.output_image + first * s.output_channel;
          // A sum for each row first: rounding errors then grow with the length
          // of a row plus the number of rows, not with their product.
          Sum sum[kBlock] = {};
          for (int64_t x = 0; x < s.output[2]; ++x) {
            const int64_t w = x * s.stride[2] + offset_w;
            if (!Within(w, s.input[2])) continue;
            Accumulate(
                Widen(from[Pixel(d, h, w, s.input) * s.input_pixel]),
                gradient + Pixel(row.d, row.h, x, s.output) * s.output_pixel,
                s.output_channel, count, sum);
          }
          for (int j = 0; j < kBlock; ++j) total[j] += sum[j];
        }
        for (int64_t j = 0; j < count; ++j) {
          Narrow(total[j], filter + number * filters + first + j);
        }
      }
    }
  }
}

template <typename Element>
constexpr Kernel<Element> MakeKernel(const char* isa) {
  return {isa, Forward<Element>, InputGradient<Element>,
          FilterGradient<Element>};
}

constexpr Kernels MakeKernels(const char* isa) {
  return {MakeKernel<float>(isa), MakeKernel<double>(isa),
          MakeKernel<BFloat16>(isa), MakeKernel<Float16>(isa)};
}

}  // namespace
}  // namespace kconv::direct

#endif  // KCONV_ALGORITHMS_DIRECT_GENERIC_H_
