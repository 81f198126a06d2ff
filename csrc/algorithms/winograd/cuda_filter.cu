#include "algorithms/winograd/cuda_run.h"
#include "cuda/launch.cuh"

namespace kconv::winograd {

template <int kOutputs>
const char* RunFilterOnCuda(const Problem& problem, const ConvArgs& args,
                            void* workspace, void* stream) {
  return CudaRunFilter<kOutputs>(problem, args, workspace,
                                 cuda::Stream(stream));
}

template const char* RunFilterOnCuda<2>(const Problem&, const ConvArgs&, void*,
                                        void*);
template const char* RunFilterOnCuda<4>(const Problem&, const ConvArgs&, void*,
                                        void*);

}  // namespace kconv::winograd
