// The GPU library, as the kernels of the ops use it. It is a file of its own,
// kconv/_cuda.so, which is opened where kconv/native.py says so.

#ifndef KCONV_TF_CUDA_LIBRARY_H_
#define KCONV_TF_CUDA_LIBRARY_H_

#include <string>

#include "conv.h"
#include "cuda/kconv_cuda.h"

namespace kconv::tf {

struct CudaLibrary {
  decltype(&kconv_cuda_algorithm) algorithm = nullptr;
  decltype(&kconv_cuda_is_strict) is_strict = nullptr;
  decltype(&kconv_cuda_refuse) refuse = nullptr;
  decltype(&kconv_cuda_workspace) workspace = nullptr;
  decltype(&kconv_cuda_run) run = nullptr;
  decltype(&kconv_cuda_deform_refuse) deform_refuse = nullptr;
  decltype(&kconv_cuda_deform_workspace) deform_workspace = nullptr;
  decltype(&kconv_cuda_deform_run) deform_run = nullptr;
};

// Opens the library, for the life of the process. Returns the empty string, or
// a sentence: what is wrong with it.
std::string OpenCuda(const char* path, CudaLibrary* library);

// The algorithm that runs on a GPU: of those that `name` allows and that accept
// the problem the one that was measured to be the fastest, else the first;
// under "auto" within the limit for workspace, or what needs least if none is.
// Returns null and sets `error` to a sentence if there is none.
const char* ChooseOnGpu(const CudaLibrary& library, const std::string& name,
                        const Problem& problem, bool deterministic,
                        std::string* error);

// Whether TensorFlow's own kernel runs on a GPU where `name` leaves the choice:
// it does unless an algorithm that may run was measured to be faster.
bool PrefersStockOnGpu(const std::string& name, const Problem& problem,
                       bool deterministic);

// Registers the kernels of the ops for a device of TensorFlow, "GPU", from now
// on. They run by `library`. To be called once. Tests, which have no GPU,
// register them for "CPU", ahead of the kernels that are there.
void RegisterGpuKernels(const CudaLibrary& library, const char* device);

}  // namespace kconv::tf

#endif  // KCONV_TF_CUDA_LIBRARY_H_
