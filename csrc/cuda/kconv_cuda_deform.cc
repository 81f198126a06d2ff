#include <string>

#include "cuda/kconv_cuda.h"
#include "cuda/problem.h"
#include "deformable/cuda.h"

namespace kconv::cuda {
namespace {

// The problem, checked; `error` says what is wrong.
struct DeformRequest {
  DeformProblem problem;
  const char* error = nullptr;

  explicit DeformRequest(const kconv_cuda_deform* asked) {
    static thread_local std::string said;
    said = DeformProblemOf(*asked, &problem);
    error = said.empty() ? deformable::RefuseOnCuda(problem) : said.c_str();
  }
};

}  // namespace
}  // namespace kconv::cuda

using kconv::DeformArgs;
using kconv::cuda::DeformRequest;

const char* kconv_cuda_deform_refuse(const kconv_cuda_deform* problem) {
  return DeformRequest(problem).error;
}

int64_t kconv_cuda_deform_workspace(const kconv_cuda_deform* problem) {
  const DeformRequest request(problem);
  return request.error ? -1 : kconv::deformable::CudaWorkspace(request.problem);
}

const char* kconv_cuda_deform_run(const kconv_cuda_deform* problem,
                                  const kconv_cuda_deform_arguments* arguments,
                                  void* stream) {
  const DeformRequest request(problem);
  if (request.error != nullptr) return request.error;
  if (request.problem.epilogue.bias != (arguments->bias != nullptr) ||
      request.problem.mask != (arguments->mask != nullptr)) {
    return "A bias and a mask must be given where the problem has them.";
  }
  return kconv::deformable::RunOnCuda(request.problem,
                                      kconv::cuda::DeformArgsOf(*arguments),
                                      arguments->workspace, stream);
}
