// What the kernels of the deformable ops do on every device: unwrap tensors,
// check them and allocate the results.

#ifndef KCONV_TF_DEFORM_KERNEL_H_
#define KCONV_TF_DEFORM_KERNEL_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "deformable/deformable.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/deform_attributes.h"
#include "tf/tensors.h"

namespace kconv::tf {

inline absl::Status CheckSizes(const char* name,
                               const tensorflow::Tensor& tensor,
                               const std::vector<int64_t>& sizes) {
  if (SizesOf(tensor) == sizes) return absl::OkStatus();
  return SizesError(name, tensorflow::TensorShape(sizes).DebugString(),
                    tensor.shape().DebugString());
}

template <typename T, Pass kPass>
class DeformKernel : public tensorflow::OpKernel {
 public:
  explicit DeformKernel(tensorflow::OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, attributes_.Read(ctx));
    if constexpr (kPass == Pass::kForward) {
      OP_REQUIRES_OK(ctx, ReadEpilogue(ctx, &epilogue_));
    }
  }

  void Compute(tensorflow::OpKernelContext* ctx) final {
    DeformProblem problem;
    problem.pass = kPass;
    problem.dtype = DTypeOf(tensorflow::DataTypeToEnum<T>::value);
    problem.mask = attributes_.num_mask > 0;
    problem.epilogue = epilogue_;
    const std::vector<int64_t> input = SizesOf(ctx->input(0));
    std::vector<int64_t> filter;
    if constexpr (kPass == Pass::kFilterGradient) {
      OP_REQUIRES_OK(ctx, ReadSizes(ctx->input(1), "filter_sizes", &filter));
    } else {
      filter = SizesOf(ctx->input(1));
    }
    OP_REQUIRES_OK(ctx, attributes_.Shape(input, filter, &problem.shape));

    DeformArgs args;
    args.input = ctx->input(0).data();
    if constexpr (kPass != Pass::kFilterGradient) {
      args.filter = ctx->input(1).data();
    }
    OP_REQUIRES_OK(
        ctx, CheckSizes("offsets", ctx->input(2), OffsetsSizes(problem.shape)));
    args.offsets = ctx->input(2).data();
    int next = 3;
    if (problem.mask) {
      OP_REQUIRES_OK(
          ctx, CheckSizes("mask", ctx->input(next), MaskSizes(problem.shape)));
      args.mask = ctx->input(next++).data();
    }
    const std::vector<int64_t> output = OutputSizes(problem.shape);
    if constexpr (kPass != Pass::kForward) {
      OP_REQUIRES_OK(ctx, CheckSizes("out_backprop", ctx->input(next), output));
      args.output = ctx->input(next).data();
    } else if (epilogue_.bias) {
      const tensorflow::Tensor& bias = ctx->input(next);
      const int64_t channels = problem.shape.conv.out_channels;
      OP_REQUIRES(ctx, bias.shape() == tensorflow::TensorShape({channels}),
                  BiasError(bias.shape().DebugString(), channels));
      args.bias = bias.data();
    }

    OP_REQUIRES_OK(ctx, Allocate(ctx, 0,
                                 kPass == Pass::kForward         ? output
                                 : kPass == Pass::kInputGradient ? input
                                                                 : filter,
                                 &args.result));
    if constexpr (kPass == Pass::kInputGradient) {
      OP_REQUIRES_OK(ctx, Allocate(ctx, 1, OffsetsSizes(problem.shape),
                                   &args.offsets_gradient));
      if (problem.mask) {
        OP_REQUIRES_OK(ctx, Allocate(ctx, 2, MaskSizes(problem.shape),
                                     &args.mask_gradient));
      }
    }
    Run(ctx, problem, args);
  }

 protected:
  // Called with every result before it is written.
  virtual void Advise(const tensorflow::Tensor& /*result*/) const {}

  virtual void Run(tensorflow::OpKernelContext* ctx,
                   const DeformProblem& problem,
                   const DeformArgs& args) const = 0;

 private:
  absl::Status Allocate(tensorflow::OpKernelContext* ctx, int index,
                        const std::vector<int64_t>& sizes, void** data) const {
    tensorflow::Tensor* tensor = nullptr;
    const absl::Status status =
        ctx->allocate_output(index, tensorflow::TensorShape(sizes), &tensor);
    if (!status.ok()) return status;
    *data = tensor->data();
    Advise(*tensor);
    return absl::OkStatus();
  }

  DeformAttributes attributes_;
  Epilogue epilogue_;
};

}  // namespace kconv::tf

#endif  // KCONV_TF_DEFORM_KERNEL_H_
