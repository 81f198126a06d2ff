// The GPU kernels of the deformable ops: they call the GPU library.

#include "absl/strings/str_cat.h"
#include "cuda/asked.h"
#include "deformable/deformable.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/deform_kernel.h"
#include "tf/gpu_kernels.h"
#include "tf/workspace_meter.h"

namespace kconv::tf {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

template <typename T, Pass kPass>
class GpuDeformKernel : public DeformKernel<T, kPass> {
 public:
  using DeformKernel<T, kPass>::DeformKernel;

 private:
  void Run(OpKernelContext* ctx, const DeformProblem& problem,
           const DeformArgs& args) const override {
    const CudaLibrary& library = TheCudaLibrary();
    const kconv_cuda_deform asked = cuda::AskedOf(problem);
    const char* refusal = library.deform_refuse(&asked);
    OP_REQUIRES(
        ctx, refusal == nullptr,
        absl::InvalidArgumentError(absl::StrCat(
            refusal, " Received: op=", ctx->op_kernel().type_string())));
    const int64_t bytes = library.deform_workspace(&asked);
    Tensor workspace;
    if (bytes > 0) {
      OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_UINT8,
                                             TensorShape({bytes}), &workspace));
    }
    const WorkspaceMeter meter(bytes);
    kconv_cuda_deform_arguments arguments = {};
    arguments.input = args.input;
    arguments.filter = args.filter;
    arguments.offsets = args.offsets;
    arguments.mask = args.mask;
    arguments.bias = args.bias;
    arguments.output = args.output;
    arguments.result = args.result;
    arguments.offsets_gradient = args.offsets_gradient;
    arguments.mask_gradient = args.mask_gradient;
    arguments.workspace = bytes > 0 ? workspace.data() : nullptr;
    const char* failure = library.deform_run(&asked, &arguments, StreamOf(ctx));
    OP_REQUIRES(
        ctx, failure == nullptr,
        absl::InternalError(absl::StrCat(
            "kconv's deformable convolution on a GPU failed: ", failure)));
  }
};

}  // namespace

void RegisterGpuDeform(const char* device) {
  RegisterGpuPass<GpuDeformKernel, Pass::kForward>("Kconv>DeformConv", device);
  RegisterGpuPass<GpuDeformKernel, Pass::kInputGradient>(
      "Kconv>DeformConvBackpropInput", device);
  RegisterGpuPass<GpuDeformKernel, Pass::kFilterGradient>(
      "Kconv>DeformConvBackpropFilter", device, "filter_sizes");
}

}  // namespace kconv::tf
