// What the kernels of the GPU are written with, so that the host compiler
// compiles the same lines: for the tests, which have no GPU.

#ifndef KCONV_CUDA_HOST_DEVICE_H_
#define KCONV_CUDA_HOST_DEVICE_H_

#ifdef __CUDACC__
#define KCONV_HOST_DEVICE __host__ __device__
#else
#define KCONV_HOST_DEVICE
#endif

// KCONV_FORGET(x) makes the compiler forget what it knows of an int, so that
// what follows from it is computed where it is used, in place of being kept in
// registers from step to step.
#ifdef __CUDA_ARCH__
#define KCONV_UNROLL _Pragma("unroll")
#define KCONV_NO_UNROLL _Pragma("unroll 1")
#define KCONV_FORGET(x) asm volatile("" : "+r"(x))
#else
#define KCONV_UNROLL
#define KCONV_NO_UNROLL
#define KCONV_FORGET(x) static_cast<void>(x)
#endif

#endif  // KCONV_CUDA_HOST_DEVICE_H_
