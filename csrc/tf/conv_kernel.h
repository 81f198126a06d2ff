// What the kernels of the three ops do on every device: unwrap tensors, check
// them and allocate the result.

#ifndef KCONV_TF_CONV_KERNEL_H_
#define KCONV_TF_CONV_KERNEL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "conv.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/attributes.h"
#include "tf/filter_shape.h"
#include "tf/tensors.h"

namespace kconv::tf {

// kPass says which of the op's inputs are tensors and which one is sizes, which
// are in the host's memory on every device.
template <typename T, Pass kPass>
class ConvKernel : public tensorflow::OpKernel {
 public:
  explicit ConvKernel(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, attributes_.Read(ctx));
    if constexpr (kPass != Pass::kFilterGradient) {
      OP_REQUIRES_OK(ctx, ReadEpilogue(ctx, &epilogue_));
    }
    if constexpr (kPass == Pass::kForward) {
      OP_REQUIRES_OK(ctx, ReadNumPrepared(ctx, &num_prepared_));
    }
  }

  void Compute(tensorflow::OpKernelContext* ctx) final {
    using tensorflow::Tensor;
    using tensorflow::TensorShape;
    std::vector<int64_t> input, filter;
    Problem problem;
    problem.pass = kPass;
    problem.dtype = DTypeOf(tensorflow::DataTypeToEnum<T>::value);
    problem.epilogue = epilogue_;
    if constexpr (kPass == Pass::kInputGradient) {
      OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(0), "input_sizes", &input));
    } else {
      input = SizesOf(ctx->input(0));
    }
    if constexpr (kPass == Pass::kFilterGradient) {
      OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(1), "filter_sizes", &filter));
    } else {
      filter = SizesOf(ctx->input(1));
    }
    OP_REQUIRES_OK(ctx, attributes_.Shape(input, filter, &problem.shape));

    const std::vector<int64_t> output = OutputSizes(problem.shape);
    if constexpr (kPass != Pass::kForward) {
      OP_REQUIRES(
          ctx, SizesOf(ctx->input(2)) == output,
          absl::InvalidArgumentError(absl::StrCat(
              "out_backprop must have the shape of the convolution's output, ",
              TensorShape(output).DebugString(),
              ". Received: shape=", ctx->input(2).shape().DebugString())));
    }

    if (epilogue_.bias) {
      const Tensor& bias = ctx->input(kBias);
      const int64_t channels = problem.WrittenChannels();
      OP_REQUIRES(ctx, bias.shape() == TensorShape({channels}),
                  BiasError(bias.shape().DebugString(), channels));
    }

    ConvArgs args;
    if (num_prepared_ > 0) {
      OP_REQUIRES_OK(
          ctx,
          ReadPrepared(problem, ctx->input(1), ctx->input(2 + epilogue_.bias),
                       ctx->input(3 + epilogue_.bias), &args.prepared));
    }

    Tensor* result = nullptr;
    OP_REQUIRES_OK(ctx,
                   ctx->allocate_output(
                       0,
                       TensorShape(kPass == Pass::kForward         ? output
                                   : kPass == Pass::kInputGradient ? input
                                                                   : filter),
                       &result));
    if (result->NumElements() == 0) return;

    args.input = Data(ctx, Pass::kInputGradient, 0, result);
    args.filter = Data(ctx, Pass::kFilterGradient, 1, result);
    args.output = Data(ctx, Pass::kForward, 2, result);
    if (epilogue_.bias) args.bias = ctx->input(kBias).data();
    Run(ctx, problem, args, result);
  }

 protected:
  // Sets `used` to what the kernel can use of `prepared`, if it was made of
  // this filter.
  virtual absl::Status ReadPrepared(const Problem& /*problem*/,
                                    const tensorflow::Tensor& /*filter*/,
                                    const tensorflow::Tensor& /*prepared*/,
                                    const tensorflow::Tensor& /*source*/,
                                    const void** /*used*/) const {
    return absl::OkStatus();
  }

  // Computes `result`, one of the tensors of `args`, which is not empty.
  virtual void Run(tensorflow::OpKernelContext* ctx, const Problem& problem,
                   ConvArgs args, tensorflow::Tensor* result) const = 0;

  const std::string& algorithm() const { return attributes_.algorithm; }

 private:
  // Where the bias is, after the operands.
  static constexpr int kBias = kPass == Pass::kForward ? 2 : 3;

  std::vector<int64_t> OutputSizes(const ConvShape& shape) const {
    std::vector<int64_t> sizes(attributes_.rank());
    const int dims = attributes_.spatial_dims();
    sizes[0] = shape.batch;
    sizes[attributes_.channel_axis()] = shape.out_channels;
    for (int i = 0; i < dims; ++i) {
      sizes[attributes_.spatial_axis(i)] =
          shape.output[kMaxSpatialDims - dims + i];
    }
    return sizes;
  }

  // The data of the op's input `index`, or of its result in the pass that
  // writes this tensor.
  static void* Data(tensorflow::OpKernelContext* ctx, Pass writes, int index,
                    tensorflow::Tensor* result) {
    return kPass == writes ? result->data() : ctx->input(index).data();
  }

  Attributes attributes_;
  Epilogue epilogue_;
  int64_t num_prepared_ = 0;
};

}  // namespace kconv::tf

#endif  // KCONV_TF_CONV_KERNEL_H_
