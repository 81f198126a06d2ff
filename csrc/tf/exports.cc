// What Python tells the op library, and asks it, beside the ops: settings of
// the process. kconv/native.py calls these through ctypes.

#include <exception>

#include "choices.h"
#include "tf/cuda_library.h"
#include "tf/workspace_meter.h"
#include "workspace_limit.h"

#define KCONV_EXPORT extern "C" __attribute__((visibility("default")))

// Replaces the measured choices. Returns whether there was memory for them.
KCONV_EXPORT bool kconv_set_choices(int64_t count, const int* threads,
                                    const char* const* keys,
                                    const char* const* names) {
  try {
    kconv::MeasuredChoices choices;
    for (int64_t i = 0; i < count; ++i) {
      choices.push_back({{threads[i], keys[i]}, names[i]});
    }
    kconv::SetChoices(choices);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// Has a GPU library run the ops on a device of TensorFlow, once in a process.
// Returns null, or a sentence that lasts until the next call.
KCONV_EXPORT const char* kconv_use_cuda(const char* path, const char* device) {
  static std::string said;
  kconv::tf::CudaLibrary library;
  said = kconv::tf::OpenCuda(path, &library);
  if (!said.empty()) return said.c_str();
  kconv::tf::RegisterGpuKernels(library, device);
  return nullptr;
}

KCONV_EXPORT void kconv_set_workspace_limit(int64_t bytes) {
  kconv::SetWorkspaceLimit(bytes < 0 ? kconv::kNoWorkspaceLimit : bytes);
}

KCONV_EXPORT int64_t kconv_workspace_peak() {
  return kconv::tf::WorkspaceMeter::Peak();
}

KCONV_EXPORT void kconv_reset_workspace_peak() {
  kconv::tf::WorkspaceMeter::ResetPeak();
}
