#include "tf/cuda_library.h"

#include <dlfcn.h>

#include "choices.h"
#include "cuda/asked.h"
#include "registry.h"
#include "tf/gpu_kernels.h"
#include "workspace_limit.h"

namespace kconv::tf {
namespace {

template <typename Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

// Whether a name allows an algorithm, as Named in registry.h.
bool Allows(const std::string& name, const std::string& algorithm,
            bool is_strict) {
  if (IsAuto(name)) return is_strict || name == "auto";
  return name == algorithm || name == algorithm.substr(0, algorithm.find(':'));
}

// The algorithm that was measured to be the fastest, if it is the library's and
// `name` allows it as it is now; else null.
const char* MeasuredOnGpu(const CudaLibrary& library, const std::string& name,
                          const Problem& problem) {
  if (!IsAuto(name)) return nullptr;
  const std::string measured = FindChoice(problem, 0);  // no threads to count
  if (measured.empty()) return nullptr;
  const kconv_cuda_problem asked = cuda::AskedOf(problem);
  for (int i = 0;; ++i) {
    const char* algorithm = library.algorithm(i);
    if (algorithm == nullptr) return nullptr;
    if (measured != algorithm) continue;
    const bool may_run =
        Allows(name, algorithm, library.is_strict(algorithm) != 0) &&
        library.refuse(algorithm, &asked) == nullptr &&
        library.workspace(algorithm, &asked) <= WorkspaceLimit();
    return may_run ? algorithm : nullptr;
  }
}

// Set before the kernels are registered, never destroyed.
const CudaLibrary* the_library = nullptr;

}  // namespace

const CudaLibrary& TheCudaLibrary() { return *the_library; }

void RegisterGpuKernels(const CudaLibrary& library, const char* device) {
  the_library = new CudaLibrary(library);
  RegisterGpuConv(device);
  RegisterGpuDeform(device);
}

std::string OpenCuda(const char* path, CudaLibrary* library) {
  void* opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) return dlerror();
  decltype(&kconv_cuda_interface) interface = nullptr;
  if (!Find(opened, "kconv_cuda_interface", &interface) ||
      interface() != KCONV_CUDA_INTERFACE ||
      !Find(opened, "kconv_cuda_algorithm", &library->algorithm) ||
      !Find(opened, "kconv_cuda_is_strict", &library->is_strict) ||
      !Find(opened, "kconv_cuda_refuse", &library->refuse) ||
      !Find(opened, "kconv_cuda_workspace", &library->workspace) ||
      !Find(opened, "kconv_cuda_run", &library->run) ||
      !Find(opened, "kconv_cuda_deform_refuse", &library->deform_refuse) ||
      !Find(opened, "kconv_cuda_deform_workspace",
            &library->deform_workspace) ||
      !Find(opened, "kconv_cuda_deform_run", &library->deform_run)) {
    dlclose(opened);
    return std::string("It has another interface: build it again. Received: ") +
           path;
  }
  return "";
}

const char* ChooseOnGpu(const CudaLibrary& library, const std::string& name,
                        const Problem& problem, bool deterministic,
                        std::string* error) {
  if (!deterministic) {
    const char* measured = MeasuredOnGpu(library, name, problem);
    if (measured != nullptr) return measured;
  }
  const kconv_cuda_problem asked = cuda::AskedOf(problem);
  const int64_t limit = IsAuto(name) ? WorkspaceLimit() : kNoWorkspaceLimit;
  const char *first = nullptr, *least = nullptr;
  std::string why_not;  // the library's own sentence is gone after a call
  int64_t least_bytes = 0;
  for (int i = 0;; ++i) {
    const char* algorithm = library.algorithm(i);
    if (algorithm == nullptr) break;
    if (!Allows(name, algorithm, library.is_strict(algorithm) != 0)) continue;
    const char* refusal = library.refuse(algorithm, &asked);
    if (refusal != nullptr) {
      if (why_not.empty()) why_not = refusal;
      continue;
    }
    const int64_t bytes = library.workspace(algorithm, &asked);
    if (least == nullptr || bytes < least_bytes) {
      least = algorithm;
      least_bytes = bytes;
    }
    if (bytes > limit) continue;
    if (first == nullptr) first = algorithm;
  }
  if (first != nullptr) return first;
  // Something must run, if it needs more than the limit.
  if (least != nullptr) return least;
  *error = why_not.empty() ? "There is no such algorithm for GPUs." : why_not;
  *error += " Received: algorithm=" + name;
  return nullptr;
}

bool PrefersStockOnGpu(const std::string& name, const Problem& problem,
                       bool deterministic) {
  // A graph that was built with GPU kernels may run where there are none.
  return deterministic || the_library == nullptr ||
         MeasuredOnGpu(*the_library, name, problem) == nullptr;
}

}  // namespace kconv::tf
