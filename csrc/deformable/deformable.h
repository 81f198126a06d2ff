// Deformable convolution: each tap of the kernel reads the image where an
// offset of its own moves it to, between the pixels.
//
//   y = out_y * stride - pad + tap_y * dilation + dy    (x alike)
//   v = mask * bilinear(input, y, x)
//   output[p, o] = activation(bias[o] + sum over taps and channels of
//                             v * filter[tap, channel, o])
//
// sampling.h defines the bilinear value. As everything in the core this knows
// neither TensorFlow, Python nor an instruction set.

#ifndef KCONV_DEFORMABLE_DEFORMABLE_H_
#define KCONV_DEFORMABLE_DEFORMABLE_H_

#include <cstdint>
#include <string>

#include "conv.h"

namespace kconv {

// The convolution that it is where all offsets are 0, of two spatial
// dimensions and channels last, and the groups of channels that share offsets:
// channel i belongs to the offset group i / OffsetGroupChannels().
//
//   offsets  [batch, output..., 2 * offset_groups * taps], dy before dx
//   mask     [batch, output..., offset_groups * taps]
struct DeformShape {
  ConvShape conv;
  int64_t offset_groups = 1;

  int64_t OffsetGroupChannels() const {
    return conv.in_channels / offset_groups;
  }
  // Sampled points of one output pixel.
  int64_t Points() const { return offset_groups * conv.KernelTaps(); }
  // Output pixels of the whole batch.
  int64_t Pixels() const { return conv.batch * conv.OutputPixels(); }
};

// CompleteShape, and the same of what a deformable convolution adds.
std::string CompleteDeformShape(DeformShape* shape);

struct DeformProblem {
  DeformShape shape;
  // kForward: the output. kInputGradient: the gradients by the input, the
  // offsets and the mask. kFilterGradient: that by the filter.
  Pass pass = Pass::kForward;
  DType dtype = DType::kFloat32;
  bool mask = false;  // whether there is one
  Epilogue epilogue;  // of the forward pass

  // Multiply-accumulates of the matrix products.
  double Macs() const;
};

// `output` is the output's gradient in the passes that compute gradients.
struct DeformArgs {
  const void* input = nullptr;
  const void* filter = nullptr;
  const void* offsets = nullptr;
  const void* mask = nullptr;
  const void* bias = nullptr;
  const void* output = nullptr;

  // What the pass writes. No two arrays overlap.
  void* result = nullptr;  // output, or gradient by the input or the filter
  void* offsets_gradient = nullptr;
  void* mask_gradient = nullptr;
};

// Bytes that a run borrows, of a shape that has output pixels.
int64_t DeformWorkspace(const DeformProblem& problem, Isa isa, int threads);

// Computes. The bits depend neither on the number of threads nor on their
// order. A shape without output pixels needs no workspace.
void RunDeform(const DeformProblem& problem, const DeformArgs& args,
               Context* ctx);

}  // namespace kconv

#endif  // KCONV_DEFORMABLE_DEFORMABLE_H_
