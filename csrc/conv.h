// The vocabulary of the core: what a convolution is (ConvShape, Pass, Problem),
// what it works on (ConvArgs, Context) and what can compute it (Algorithm).
//
// Nothing here knows TensorFlow, Python or an instruction set. The core prints
// nothing, never aborts, and borrows threads and memory from its caller.

#ifndef KCONV_CONV_H_
#define KCONV_CONV_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "activation.h"
#include "cpu.h"

namespace kconv {

enum class DType { kFloat32, kFloat64, kBFloat16, kFloat16 };
enum class Layout { kChannelsLast, kChannelsFirst };
enum class Pass { kForward, kInputGradient, kFilterGradient };
enum class Device { kCpu, kGpu };

inline constexpr int kMaxSpatialDims = 3;

// Bytes of one element.
int64_t SizeOf(DType dtype);

// A convolution of one to three spatial dimensions, of any number of groups.
//
// Arrays hold depth, height and width, in this order; missing leading
// dimensions are 1 wide. Depthwise is groups == in_channels, a transposed
// convolution is the input gradient.
//
//   input   [batch, in_channels, input...]    or channels last
//   filter  [kernel..., in_channels / groups, out_channels] in both layouts
//   output  [batch, out_channels, output...]  or channels last
struct ConvShape {
  Layout layout = Layout::kChannelsLast;
  int spatial_dims = 2;
  int64_t batch = 1;
  int64_t in_channels = 1;
  int64_t out_channels = 1;
  int64_t groups = 1;
  int64_t input[kMaxSpatialDims] = {1, 1, 1};
  int64_t kernel[kMaxSpatialDims] = {1, 1, 1};
  int64_t stride[kMaxSpatialDims] = {1, 1, 1};
  int64_t dilation[kMaxSpatialDims] = {1, 1, 1};
  int64_t pad_before[kMaxSpatialDims] = {0, 0, 0};
  int64_t pad_after[kMaxSpatialDims] = {0, 0, 0};
  int64_t output[kMaxSpatialDims] = {1, 1, 1};  // set by CompleteShape

  int64_t GroupInChannels() const { return in_channels / groups; }
  int64_t GroupOutChannels() const { return out_channels / groups; }
  int64_t InputPixels() const { return input[0] * input[1] * input[2]; }
  int64_t OutputPixels() const { return output[0] * output[1] * output[2]; }
  int64_t KernelTaps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t InputElements() const { return batch * in_channels * InputPixels(); }
  int64_t OutputElements() const {
    return batch * out_channels * OutputPixels();
  }
  int64_t FilterElements() const {
    return KernelTaps() * GroupInChannels() * out_channels;
  }
};

// Checks one spatial dimension and computes its output size,
//   floor((input + pads - (kernel - 1) * dilation - 1) / stride) + 1.
// An axis of size 0 may give none; any other must hold the dilated kernel.
// Returns the empty string, or a sentence that says what is wrong.
std::string OutputSize(int64_t input, int64_t kernel, int64_t stride,
                       int64_t dilation, int64_t pad_before, int64_t pad_after,
                       int64_t* output);

// TensorFlow's "same" padding: ceil(input / stride) outputs, the odd pixel
// after. Expects positive sizes; returns false where they overflow.
bool SamePadding(int64_t input, int64_t kernel, int64_t stride,
                 int64_t dilation, int64_t* pad_before, int64_t* pad_after);

// Checks every field, overflow of each tensor's size included, and fills
// `output`. Returns the empty string, or a sentence that says what is wrong.
std::string CompleteShape(ConvShape* shape);

// What follows the passes that write an image, while it is in the cache:
//   image = activation(convolution + bias)
// in the type that sums are kept in, rounded once. epilogue.h computes it.
struct Epilogue {
  bool bias = false;  // whether ConvArgs::bias is given
  Activation activation = Activation::kNone;

  bool Empty() const { return !bias && activation == Activation::kNone; }
};

// What an algorithm is asked to compute.
struct Problem {
  ConvShape shape;
  Pass pass = Pass::kForward;
  DType dtype = DType::kFloat32;
  Device device = Device::kCpu;
  Epilogue epilogue;

  // Multiply-accumulates by the definition, padding counted as work.
  double Macs() const;
  // Of the image that is written: the length of the bias.
  int64_t WrittenChannels() const {
    return pass == Pass::kInputGradient ? shape.in_channels
                                        : shape.out_channels;
  }
};

// The three tensors, and the bias. The pass says which one is written: forward
// `output`, input gradient `input`, filter gradient `filter`; the gradient of
// the output is read from `output`.
struct ConvArgs {
  void* input = nullptr;
  void* filter = nullptr;
  void* output = nullptr;
  const void* bias = nullptr;  // [WrittenChannels()], of the elements' type
  // What Algorithm::prepare made of this filter, or null. Forward only.
  const void* prepared = nullptr;
};

// What a run borrows from its caller.
class Context {
 public:
  virtual ~Context() = default;

  // Workers that ParallelFor may call from; sizes the workspace.
  virtual int threads() const = 0;

  // Calls body(begin, end, worker) so that every item of [0, items) is covered
  // once; worker < min(threads(), items) is unique among calls that run at one
  // time. The body must not throw, nor may it allocate from the heap.
  virtual void ParallelFor(
      int64_t items, double seconds_per_item,
      const std::function<void(int64_t, int64_t, int)>& body) = 0;

  Isa isa = Isa::kBaseline;   // the best that kernels may use
  void* workspace = nullptr;  // Algorithm::workspace bytes, 64-byte aligned
  void* stream = nullptr;     // of the GPU

  // Set by the kernel that ran, so that a test can prove which one did.
  const char* isa_ran = nullptr;
};

// A way to compute convolutions. Adding one takes a folder below algorithms/
// and a line in algorithms.inc.
struct Algorithm {
  const char* name;
  // Whether each result is rounded as a plain sum of its products, and reaches
  // no element outside its window.
  bool is_strict;
  // Null, or a sentence: why it cannot take this problem.
  const char* (*refuse)(const Problem&);
  // Bytes it needs beside its operands.
  int64_t (*workspace)(const Problem&, Isa, int threads);
  // Estimated seconds on one core of this machine, for choosing.
  double (*cost)(const Problem&, const Cpu&, Isa);
  // Bytes of a prepared filter: one in the form in which the forward pass reads
  // it. 0 where the algorithm has no use for one. Of the problem they heed the
  // filter, the groups and the strides only. Variants of a family share a form.
  int64_t (*prepared_bytes)(const Problem&, Isa);
  // Writes them, to memory that is 64-byte aligned.
  void (*prepare)(const Problem&, Isa, const void* filter, void* to);
  // Computes. Null, or a sentence where the device failed. May throw
  // std::bad_alloc, from the calling thread only.
  const char* (*run)(const Problem&, const ConvArgs&, Context*);
  // Multiplications of its products, transforms aside. Null: Problem::Macs.
  double (*multiplications)(const Problem&) = nullptr;
};

}  // namespace kconv

#endif  // KCONV_CONV_H_
