// The CPU kernels of the deformable ops: unwrap tensors, allocate, call the
// core.

#include <new>

#include "absl/strings/str_cat.h"
#include "deformable/deformable.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/deform_attributes.h"
#include "tf/huge_pages.h"
#include "tf/intra_op_context.h"
#include "tf/tensors.h"
#include "tf/workspace_meter.h"

namespace kconv::tf {
namespace {

using tensorflow::DataTypeToEnum;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

absl::Status CheckSizes(const char* name, const Tensor& tensor,
                        const std::vector<int64_t>& sizes) {
  if (SizesOf(tensor) == sizes) return absl::OkStatus();
  return SizesError(name, TensorShape(sizes).DebugString(),
                    tensor.shape().DebugString());
}

template <typename T, Pass kPass>
class DeformKernel : public OpKernel {
 public:
  explicit DeformKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, attributes_.Read(ctx));
    if constexpr (kPass == Pass::kForward) {
      OP_REQUIRES_OK(ctx, ReadEpilogue(ctx, &epilogue_));
    }
  }

  void Compute(OpKernelContext* ctx) override {
    DeformProblem problem;
    problem.pass = kPass;
    problem.dtype = DTypeOf(DataTypeToEnum<T>::value);
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
    args.filter = ctx->input(1).data();
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
      const Tensor& bias = ctx->input(next);
      const int64_t channels = problem.shape.conv.out_channels;
      OP_REQUIRES(ctx, bias.shape() == TensorShape({channels}),
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

 private:
  static absl::Status Allocate(OpKernelContext* ctx, int index,
                               const std::vector<int64_t>& sizes, void** data) {
    Tensor* tensor = nullptr;
    const absl::Status status =
        ctx->allocate_output(index, TensorShape(sizes), &tensor);
    if (!status.ok()) return status;
    *data = tensor->data();
    AdviseHugePages(tensor->data(), tensor->TotalBytes());
    return absl::OkStatus();
  }

  static void Run(OpKernelContext* ctx, const DeformProblem& problem,
                  const DeformArgs& args) {
    IntraOpContext context(ctx);
    try {
      const int64_t bytes =
          problem.shape.Pixels() == 0
              ? 0
              : DeformWorkspace(problem, context.isa, context.threads());
      Tensor workspace;
      if (bytes > 0) {
        OP_REQUIRES_OK(
            ctx, ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}),
                                    &workspace));
        context.workspace = workspace.data();
        AdviseHugePages(workspace.data(), bytes);
      }
      const WorkspaceMeter meter(bytes);
      RunDeform(problem, args, &context);
    } catch (const std::bad_alloc&) {
      ctx->SetStatus(absl::ResourceExhaustedError(absl::StrCat(
          "Out of memory. Received: op=", ctx->op_kernel().type_string())));
    }
  }

  DeformAttributes attributes_;
  Epilogue epilogue_;
};

#define KCONV_REGISTER(T)                                         \
  REGISTER_KERNEL_BUILDER(Name("Kconv>DeformConv")                \
                              .Device(tensorflow::DEVICE_CPU)     \
                              .TypeConstraint<T>("T"),            \
                          DeformKernel<T, Pass::kForward>);       \
  REGISTER_KERNEL_BUILDER(Name("Kconv>DeformConvBackpropInput")   \
                              .Device(tensorflow::DEVICE_CPU)     \
                              .TypeConstraint<T>("T"),            \
                          DeformKernel<T, Pass::kInputGradient>); \
  REGISTER_KERNEL_BUILDER(Name("Kconv>DeformConvBackpropFilter")  \
                              .Device(tensorflow::DEVICE_CPU)     \
                              .TypeConstraint<T>("T"),            \
                          DeformKernel<T, Pass::kFilterGradient>);

KCONV_REGISTER(float)
KCONV_REGISTER(double)
KCONV_REGISTER(Eigen::half)
KCONV_REGISTER(Eigen::bfloat16)

}  // namespace
}  // namespace kconv::tf
