/* The GPU library, in C: what TensorFlow's glue, PyTorch, CuPy or anything else
 * with device pointers and a stream can call. All functions begin with
 * kconv_cuda_ and are safe to call from several threads. Sentences that are
 * returned belong to the library and last until the thread's next call. */

#ifndef KCONV_CUDA_KCONV_CUDA_H_
#define KCONV_CUDA_KCONV_CUDA_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Changes with the structs and the functions below. */
#define KCONV_CUDA_INTERFACE 2

/* A convolution. Arrays hold depth, height, width; those that a convolution
 * lacks come first, with size, kernel, stride and dilation 1 and padding 0. */
typedef struct {
  int32_t pass;       /* 0 forward, 1 input gradient, 2 filter gradient */
  int32_t dtype;      /* 0 float32, 1 float64, 2 bfloat16, 3 float16 */
  int32_t layout;     /* 0 channels last, 1 channels first */
  int32_t dimensions; /* 1 to 3 */
  int32_t has_bias;
  int32_t activation; /* 0 none, 1 relu, 2 relu6 */
  int64_t batch, in_channels, out_channels, groups;
  int64_t input[3], kernel[3], stride[3], dilation[3];
  int64_t pad_before[3], pad_after[3];
} kconv_cuda_problem;

/* Device pointers, aligned to their elements; fastest at 16 bytes. The pass
 * says which of the tensors is written, and no element of it needs to be set
 * before. The filter is [kernel..., in_channels / groups, out_channels]. */
typedef struct {
  void* input;
  void* filter;
  void* output;
  const void* bias; /* or null */
  void* workspace;  /* kconv_cuda_workspace bytes, 16-byte aligned, or null */
} kconv_cuda_arguments;

int kconv_cuda_interface(void);
const char* kconv_cuda_version(void);

/* Of CUDA, as 13000 for 13.0: what it was built with, and what the driver
 * knows, 0 without one. */
int kconv_cuda_runtime_version(void);
int kconv_cuda_driver_version(void);

/* How many GPUs there are that it has kernels for, of compute capability 8.0
 * and newer; 0 where CUDA cannot be used. */
int kconv_cuda_devices(void);

/* The name of an algorithm, best first; null past the last one. */
const char* kconv_cuda_algorithm(int number);

/* Whether each of its results is rounded as a plain sum of its products, and
 * reaches no element outside its window. */
int kconv_cuda_is_strict(const char* algorithm);

/* Null, or a sentence: why the algorithm cannot take the problem. */
const char* kconv_cuda_refuse(const char* algorithm, const kconv_cuda_problem*);

/* Bytes of workspace; -1 for a problem that is refused. */
int64_t kconv_cuda_workspace(const char* algorithm, const kconv_cuda_problem*);

/* Puts the work on a stream (cudaStream_t) of the current device, and returns
 * null or a sentence. Does not wait for it. */
const char* kconv_cuda_run(const char* algorithm, const kconv_cuda_problem*,
                           const kconv_cuda_arguments*, void* stream);

/* A deformable convolution: height before width, channels last. What it reads
 * and writes is defined in csrc/deformable/deformable.h. */
typedef struct {
  int32_t
      pass; /* 0 forward, 1 gradients by input, offsets and mask, 2 filter */
  int32_t dtype; /* as of kconv_cuda_problem */
  int32_t has_mask;
  int32_t has_bias;   /* forward only, as the activation */
  int32_t activation; /* as of kconv_cuda_problem */
  int32_t reserved;   /* 0 */
  int64_t batch, in_channels, out_channels, groups, offset_groups;
  int64_t input[2], kernel[2], stride[2], dilation[2];
  int64_t pad_before[2], pad_after[2];
} kconv_cuda_deform;

/* Device pointers, aligned to their elements; fastest at 16 bytes. `result` is
 * the output, or the gradient by the input or the filter. No two overlap. */
typedef struct {
  const void* input;
  const void* filter; /* not read by the filter gradient */
  const void* offsets;
  const void* mask;   /* or null */
  const void* bias;   /* or null */
  const void* output; /* the output's gradient; not read by the forward pass */
  void* result;
  void* offsets_gradient; /* written by pass 1 */
  void* mask_gradient;    /* written by pass 1 where there is a mask */
  void* workspace;        /* kconv_cuda_deform_workspace bytes, or null */
} kconv_cuda_deform_arguments;

/* As the functions without `deform` in their names. */
const char* kconv_cuda_deform_refuse(const kconv_cuda_deform*);
int64_t kconv_cuda_deform_workspace(const kconv_cuda_deform*);
const char* kconv_cuda_deform_run(const kconv_cuda_deform*,
                                  const kconv_cuda_deform_arguments*,
                                  void* stream);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* KCONV_CUDA_KCONV_CUDA_H_ */
