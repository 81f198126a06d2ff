#include "algorithms/winograd/cuda.h"
#include "algorithms/winograd/cuda_run.h"
#include "cuda/launch.cuh"

namespace kconv::winograd {

// cuda_filter.cu, which takes as long to compile as this file.
template <int kOutputs>
const char* RunFilterOnCuda(const Problem& problem, const ConvArgs& args,
                            void* workspace, void* stream);
extern template const char* RunFilterOnCuda<2>(const Problem&, const ConvArgs&,
                                               void*, void*);
extern template const char* RunFilterOnCuda<4>(const Problem&, const ConvArgs&,
                                               void*, void*);

template <int kOutputs>
const char* RefuseOnCuda(const Problem& problem) {
  return CudaRefusal<kOutputs>(problem);
}

template <int kOutputs>
int64_t CudaWorkspace(const Problem& problem) {
  return CudaWorkspaceBytes<kOutputs>(problem);
}

template <int kOutputs>
const char* RunOnCuda(const Problem& problem, const ConvArgs& args,
                      void* workspace, void* stream) {
  return problem.pass == Pass::kFilterGradient
             ? RunFilterOnCuda<kOutputs>(problem, args, workspace, stream)
             : CudaRunImage<kOutputs>(problem, args, workspace,
                                      cuda::Stream(stream));
}

template const char* RefuseOnCuda<2>(const Problem&);
template const char* RefuseOnCuda<4>(const Problem&);
template int64_t CudaWorkspace<2>(const Problem&);
template int64_t CudaWorkspace<4>(const Problem&);
template const char* RunOnCuda<2>(const Problem&, const ConvArgs&, void*,
                                  void*);
template const char* RunOnCuda<4>(const Problem&, const ConvArgs&, void*,
                                  void*);

}  // namespace kconv::winograd
