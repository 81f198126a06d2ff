// What the kernels of the GPU are written with, so that the host compiler
// compiles the same lines: for the tests, which have no GPU.

#ifndef KCONV_CUDA_HOST_DEVICE_H_
#define KCONV_CUDA_HOST_DEVICE_H_

#ifdef __CUDACC__
#define KCONV_HOST_DEVICE __host__ __device__
#else
#define KCONV_HOST_DEVICE
#endif

#ifdef __CUDA_ARCH__
#define KCONV_UNROLL _Pragma("unroll")
#define KCONV_ROLL _Pragma("unroll 1")
#else
#define KCONV_UNROLL
#define KCONV_ROLL
#endif

#endif  // KCONV_CUDA_HOST_DEVICE_H_
