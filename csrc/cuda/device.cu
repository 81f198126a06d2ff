// What CUDA says of this machine.

#include <cuda_runtime.h>

#include "cuda/kconv_cuda.h"

int kconv_cuda_runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

int kconv_cuda_driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int kconv_cuda_devices() {
  constexpr int kLeastMajor = 8;  // of compute capability, as setup.py compiles
  int count = 0, usable = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // or the next call of someone else would find it
    return 0;
  }
  for (int i = 0; i < count; ++i) {
    int major = 0;
    const cudaError_t error =
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i);
    if (error == cudaSuccess && major >= kLeastMajor) ++usable;
  }
  return usable;
}
