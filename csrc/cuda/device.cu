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
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // or the next call of someone else would find it
    return 0;
  }
  return count;
}
