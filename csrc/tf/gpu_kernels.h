// What the GPU kernels of all ops have in common: the GPU library, TensorFlow's
// stream, and how they are registered. No header of CUDA is needed for that.

#ifndef KCONV_TF_GPU_KERNELS_H_
#define KCONV_TF_GPU_KERNELS_H_

#include "conv.h"
#include "tensorflow/core/framework/kernel_def_builder.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tf/cuda_library.h"
#include "xla/stream_executor/stream.h"

namespace kconv::tf {

// What RegisterGpuKernels was given.
const CudaLibrary& TheCudaLibrary();

// Of the ops of a file, called by RegisterGpuKernels.
void RegisterGpuConv(const char* device);
void RegisterGpuDeform(const char* device);

// TensorFlow's stream (cudaStream_t) of the device that an op runs on.
inline void* StreamOf(tensorflow::OpKernelContext* ctx) {
  const tensorflow::DeviceContext* device = ctx->op_device_context();
  // Where tests stand in for a GPU there is none.
  if (device == nullptr || device->stream() == nullptr) return nullptr;
  return device->stream()->platform_specific_handle().stream;
}

// Registers Kernel for elements of type T. The input `in_host_memory` is not
// copied to the device.
template <typename T, typename Kernel>
void RegisterGpuKernel(const char* op, const char* device,
                       const char* in_host_memory = nullptr) {
  tensorflow::KernelDefBuilder builder(op);
  // Ahead of the CPU's kernels, for tests; no other kernel is for GPUs.
  builder.Device(device).TypeConstraint<T>("T").Priority(1);
  if (in_host_memory != nullptr) builder.HostMemory(in_host_memory);
  // Registers in its constructor, and owns nothing afterwards.
  tensorflow::kernel_factory::OpKernelRegistrar(
      builder.Build(), "kconv::tf::GpuKernel",
      [](tensorflow::OpKernelConstruction* ctx) -> tensorflow::OpKernel* {
        return new Kernel(ctx);
      });
}

// The same of a kernel of every type and a pass.
template <template <typename, Pass> class Kernel, Pass kPass>
void RegisterGpuPass(const char* op, const char* device,
                     const char* in_host_memory = nullptr) {
  RegisterGpuKernel<float, Kernel<float, kPass>>(op, device, in_host_memory);
  RegisterGpuKernel<double, Kernel<double, kPass>>(op, device, in_host_memory);
  RegisterGpuKernel<Eigen::half, Kernel<Eigen::half, kPass>>(op, device,
                                                             in_host_memory);
  RegisterGpuKernel<Eigen::bfloat16, Kernel<Eigen::bfloat16, kPass>>(
      op, device, in_host_memory);
}

}  // namespace kconv::tf

#endif  // KCONV_TF_GPU_KERNELS_H_
