// The GPU kernels of the ops: they call the GPU library, on TensorFlow's stream
// and in its memory. No header of CUDA is needed for that.

#include "absl/strings/str_cat.h"
#include "cuda/asked.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/determinism.h"
#include "tf/conv_kernel.h"
#include "tf/cuda_library.h"
#include "tf/workspace_meter.h"
#include "xla/stream_executor/stream.h"

namespace kconv::tf {
namespace {

using tensorflow::KernelDefBuilder;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;

// Set before the kernels are registered, never destroyed.
const CudaLibrary* the_library = nullptr;

// TensorFlow's stream (cudaStream_t) of the device that an op runs on.
void* StreamOf(OpKernelContext* ctx) {
  const tensorflow::DeviceContext* device = ctx->op_device_context();
  // Where tests stand in for a GPU there is none.
  if (device == nullptr || device->stream() == nullptr) return nullptr;
  return device->stream()->platform_specific_handle().stream;
}

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
        ChooseOnGpu(*the_library, this->algorithm(), problem,
                    tensorflow::OpDeterminismRequired(), &error);
    OP_REQUIRES(ctx, algorithm != nullptr, absl::InvalidArgumentError(error));
    const kconv_cuda_problem asked = cuda::AskedOf(problem);
    const int64_t bytes = the_library->workspace(algorithm, &asked);
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
        the_library->run(algorithm, &asked, &arguments, StreamOf(ctx));
    OP_REQUIRES(ctx, failure == nullptr,
                absl::InternalError(absl::StrCat(
                    "kconv's ", algorithm, " on a GPU failed: ", failure)));
  }
};

template <typename Kernel>
OpKernel* Make(OpKernelConstruction* ctx) {
  return new Kernel(ctx);
}

template <typename T, Pass kPass>
void Register(const char* op, const char* device, const char* host_memory) {
  KernelDefBuilder builder(op);
  // Ahead of the CPU's kernels, for tests; no other kernel is for GPUs.
  builder.Device(device).template TypeConstraint<T>("T").Priority(1);
  if (host_memory != nullptr) builder.HostMemory(host_memory);
  // Registers in its constructor, and owns nothing afterwards.
  tensorflow::kernel_factory::OpKernelRegistrar(builder.Build(),
                                                "kconv::tf::GpuConvKernel",
                                                &Make<GpuConvKernel<T, kPass>>);
}

template <typename T>
void RegisterOf(const char* device) {
  Register<T, Pass::kForward>("Kconv>Conv", device, nullptr);
  Register<T, Pass::kInputGradient>("Kconv>ConvBackpropInput", device,
                                    "input_sizes");
  Register<T, Pass::kFilterGradient>("Kconv>ConvBackpropFilter", device,
                                     "filter_sizes");
}

}  // namespace

void RegisterGpuKernels(const CudaLibrary& library, const char* device) {
  the_library = new CudaLibrary(library);
  RegisterOf<float>(device);
  RegisterOf<double>(device);
  RegisterOf<Eigen::half>(device);
  RegisterOf<Eigen::bfloat16>(device);
}

}  // namespace kconv::tf
