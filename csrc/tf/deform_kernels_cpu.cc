// The CPU kernels of the deformable ops: they call the core.

#include <new>

#include "absl/strings/str_cat.h"
#include "deformable/deformable.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/deform_kernel.h"
#include "tf/huge_pages.h"
#include "tf/intra_op_context.h"
#include "tf/workspace_meter.h"

namespace kconv::tf {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

template <typename T, Pass kPass>
class CpuDeformKernel : public DeformKernel<T, kPass> {
 public:
  using DeformKernel<T, kPass>::DeformKernel;

 private:
  void Advise(const Tensor& result) const override {
    AdviseHugePages(result.data(), result.TotalBytes());
  }

  void Run(OpKernelContext* ctx, const DeformProblem& problem,
           const DeformArgs& args) const override {
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
};

#define KCONV_REGISTER(T)                                            \
  REGISTER_KERNEL_BUILDER(Name("Kconv>DeformConv")                   \
                              .Device(tensorflow::DEVICE_CPU)        \
                              .TypeConstraint<T>("T"),               \
                          CpuDeformKernel<T, Pass::kForward>);       \
  REGISTER_KERNEL_BUILDER(Name("Kconv>DeformConvBackpropInput")      \
                              .Device(tensorflow::DEVICE_CPU)        \
                              .TypeConstraint<T>("T"),               \
                          CpuDeformKernel<T, Pass::kInputGradient>); \
  REGISTER_KERNEL_BUILDER(Name("Kconv>DeformConvBackpropFilter")     \
                              .Device(tensorflow::DEVICE_CPU)        \
                              .TypeConstraint<T>("T"),               \
                          CpuDeformKernel<T, Pass::kFilterGradient>);

KCONV_REGISTER(float)
KCONV_REGISTER(double)
KCONV_REGISTER(Eigen::half)
KCONV_REGISTER(Eigen::bfloat16)

}  // namespace
}  // namespace kconv::tf
