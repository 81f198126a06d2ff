// Checks of ConvShape, and its arithmetic.

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "conv.h"

namespace kconv {
namespace {

// Bytes of a tensor, and sums of a few sizes, must fit in 64 bits; a bound on
// each size keeps every sum and product below that is not checked by itself.
constexpr int64_t kMaxSize = int64_t{1} << 48;
constexpr int64_t kMaxElements = std::numeric_limits<int64_t>::max() / 16;

std::string Received(const std::string& what, const char* name, int64_t value) {
  return what + " Received: " + name + "=" + std::to_string(value);
}

std::string AtMost(const char* name, int64_t value) {
  return Received(std::string(name) + " is too large.", name, value);
}

// Whether the product of the factors is too large. A zero among them makes the
// product zero, but not the products of some of them that others compute.
bool ProductOverflows(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) {
    if (factor == 0) continue;
    if (__builtin_mul_overflow(product, factor, &product) ||
        product > kMaxElements) {
      return true;
    }
  }
  return false;
}

// The sizes of the spatial dimensions that there are: "(3, 4)".
std::string Sizes(const ConvShape& s, const int64_t* sizes) {
  std::string text = "(";
  for (int i = kMaxSpatialDims - s.spatial_dims; i < kMaxSpatialDims; ++i) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(sizes[i]);
  }
  return text + ")";
}

int64_t FloorDivide(int64_t a, int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

}  // namespace

int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      break;
  }
  return 2;
}

std::string OutputSize(int64_t input, int64_t kernel, int64_t stride,
                       int64_t dilation, int64_t pad_before, int64_t pad_after,
                       int64_t* output) {
  if (input < 0) {
    return Received("The input's sizes must not be negative.", "size", input);
  }
  if (kernel < 1) {
    return Received("The kernel must not be empty.", "kernel_size", kernel);
  }
  if (stride < 1) {
    return Received("strides must be positive.", "strides", stride);
  }
  if (dilation < 1) {
    return Received("dilation_rate must be positive.", "dilation_rate",
                    dilation);
  }
  if (pad_before < 0 || pad_after < 0) {
    return Received("padding must not be negative.", "padding",
                    std::min(pad_before, pad_after));
  }
  if (input > kMaxSize) return AtMost("size", input);
  if (kernel > kMaxSize) return AtMost("kernel_size", kernel);
  if (stride > kMaxSize) return AtMost("strides", stride);
  if (dilation > kMaxSize) return AtMost("dilation_rate", dilation);
  if (std::max(pad_before, pad_after) > kMaxSize) {
    return AtMost("padding", std::max(pad_before, pad_after));
  }
  int64_t reach;  // pixels between a kernel's first and last tap
  if (__builtin_mul_overflow(kernel - 1, dilation, &reach) ||
      reach > kMaxSize) {
    return AtMost("dilation_rate", dilation);
  }
  const int64_t padded = input + pad_before + pad_after;
  if (input > 0 && padded <= reach) {
    return "The kernel is larger than the padded input. Received: kernel of " +
           std::to_string(reach + 1) +
           " (dilation included), padded input of " + std::to_string(padded);
  }
  *output = std::max<int64_t>(0, FloorDivide(padded - reach - 1, stride) + 1);
  return "";
}

bool SamePadding(int64_t input, int64_t kernel, int64_t stride,
                 int64_t dilation, int64_t* pad_before, int64_t* pad_after) {
  *pad_before = *pad_after = 0;
  int64_t reach;
  if (input > kMaxSize || stride > kMaxSize ||
      __builtin_mul_overflow(kernel - 1, dilation, &reach) ||
      reach > kMaxSize) {
    return false;
  }
  if (input <= 0) return true;  // an empty axis needs none to stay empty
  const int64_t last = (input - 1) / stride * stride;  // of the first taps
  const int64_t total = std::max<int64_t>(0, last + reach + 1 - input);
  *pad_before = total / 2;
  *pad_after = total - total / 2;
  return true;
}

std::string CompleteShape(ConvShape* s) {
  if (s->batch < 0) {
    return Received("The batch must not be negative.", "batch", s->batch);
  }
  if (s->batch > kMaxSize) return AtMost("batch", s->batch);
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    std::string error =
        OutputSize(s->input[i], s->kernel[i], s->stride[i], s->dilation[i],
                   s->pad_before[i], s->pad_after[i], &s->output[i]);
    if (!error.empty()) return error;
  }
  if (s->in_channels < 1) {
    return Received("The input must have channels.", "channels",
                    s->in_channels);
  }
  if (s->out_channels < 1) {
    return Received("The kernel must have filters.", "filters",
                    s->out_channels);
  }
  if (s->in_channels > kMaxSize) return AtMost("channels", s->in_channels);
  if (s->out_channels > kMaxSize) return AtMost("filters", s->out_channels);
  if (s->groups < 1) {
    return Received("groups must be positive.", "groups", s->groups);
  }
  if (s->in_channels % s->groups != 0 || s->out_channels % s->groups != 0) {
    return "Channels and filters must be divisible by groups. Received: "
           "channels=" +
           std::to_string(s->in_channels) +
           ", filters=" + std::to_string(s->out_channels) +
           ", groups=" + std::to_string(s->groups);
  }
  if (ProductOverflows(
          {s->batch, s->in_channels, s->input[0], s->input[1], s->input[2]})) {
    return "The input has too many elements. Received: size=" +
           Sizes(*s, s->input);
  }
  if (ProductOverflows({s->batch, s->out_channels, s->output[0], s->output[1],
                        s->output[2]})) {
    return "The output has too many elements. Received: size=" +
           Sizes(*s, s->output);
  }
  if (ProductOverflows({s->kernel[0], s->kernel[1], s->kernel[2],
                        s->GroupInChannels(), s->out_channels})) {
    return "The kernel has too many elements. Received: kernel_size=" +
           Sizes(*s, s->kernel);
  }
  return "";
}

double Problem::Macs() const {
  return static_cast<double>(shape.OutputElements()) *
         static_cast<double>(shape.KernelTaps()) *
         static_cast<double>(shape.GroupInChannels());
}

}  // namespace kconv
