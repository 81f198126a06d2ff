// The GPU kernels of the ops: they call the GPU library.

#include "absl/strings/str_cat.h"
#include "cuda/asked.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/determinism.h"
#include "tf/conv_kernel.h"
#include "tf/cuda_library.h"
#include "tf/gpu_kernels.h"
#include "tf/workspace_meter.h"

namespace kconv::tf {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

template <typename T, Pass kPass>
class GpuConvKernel : public ConvKernel<T, kPass> {
 public:
  using ConvKernel<T, kPass>::ConvKernel;

 private:
  void Run(OpKernelContext* ctx, const Problem& of_any_device, ConvArgs args,
           Tensor*) const override {
    Problem problem = of_any_device;
    problem.device = Device::kGpu;
    std::string error;
    const char* algorithm =
        ChooseOnGpu(TheCudaLibrary(), this->algorithm(), problem,
                    tensorflow::OpDeterminismRequired(), &error);
    OP_REQUIRES(ctx, algorithm != nullptr, absl::InvalidArgumentError(error));
    const kconv_cuda_problem asked = cuda::AskedOf(problem);
    const int64_t bytes = TheCudaLibrary().workspace(algorithm, &asked);
    Tensor workspace;
    if (bytes > 0) {
      OP_REQUIRES_OK(ctx, ctx->allocate_temp(tensorflow::DT_UINT8,
                                             TensorShape({bytes}), &workspace));
    }
    const WorkspaceMeter meter(bytes);
    kconv_cuda_arguments arguments = {};
    arguments.input = args.input;
    arguments.filter = args.filter;
    arguments.output = args.output;
    arguments.bias = args.bias;
    arguments.workspace = bytes > 0 ? workspace.data() : nullptr;
    // The work that TensorFlow puts on the stream after this sees the result,
    // and may have the memory of the workspace.
    const char* failure =
        TheCudaLibrary().run(algorithm, &asked, &arguments, StreamOf(ctx));
    OP_REQUIRES(ctx, failure == nullptr,
                absl::InternalError(absl::StrCat(
                    "kconv's ", algorithm, " on a GPU failed: ", failure)));
  }
};

}  // namespace

void RegisterGpuConv(const char* device) {
  RegisterGpuPass<GpuConvKernel, Pass::kForward>("Kconv>Conv", device);
  RegisterGpuPass<GpuConvKernel, Pass::kInputGradient>(
      "Kconv>ConvBackpropInput", device, "input_sizes");
  RegisterGpuPass<GpuConvKernel, Pass::kFilterGradient>(
      "Kconv>ConvBackpropFilter", device, "filter_sizes");
}

}  // namespace kconv::tf
