#include <string>

#include "cuda/addresses.h"
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

const char* Misplaced(const DeformProblem& problem,
                      const kconv_cuda_deform_arguments& a) {
  const ConvShape& s = problem.shape.conv;
  const int64_t points = problem.shape.Pixels() * problem.shape.Points();
  const bool forward = problem.pass == Pass::kForward;
  const bool image = problem.pass == Pass::kInputGradient;
  const int64_t results = forward ? s.OutputElements()
                          : image ? s.InputElements()
                                  : s.FilterElements();
  // Without output pixels nothing is read.
  const int64_t read = points > 0 ? 1 : 0;
  return AddressError(
      {{a.input, read * s.InputElements()},
       {a.filter, problem.pass == Pass::kFilterGradient ? 0 : read},
       {a.offsets, points},
       {a.mask, problem.mask ? points : 0},
       {a.bias, problem.epilogue.bias ? read : 0},
       {a.output, forward ? 0 : read},
       {a.result, results},
       {a.offsets_gradient, image ? points : 0},
       {a.mask_gradient, image && problem.mask ? points : 0}},
      SizeOf(problem.dtype), a.workspace);
}

}  // namespace
}  // namespace kconv::cuda

using kconv::DeformArgs;
using kconv::cuda::DeformRequest;
using kconv::cuda::Misplaced;

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
  const kconv::DeformShape& shape = request.problem.shape;
  // A mask without elements may have no address.
  const bool has_mask = request.problem.mask && shape.Pixels() > 0;
  if (request.problem.epilogue.bias != (arguments->bias != nullptr) ||
      (has_mask && arguments->mask == nullptr) ||
      (!request.problem.mask && arguments->mask != nullptr)) {
    return "A bias and a mask must be given where the problem has them.";
  }
  if (arguments->workspace == nullptr &&
      kconv::deformable::CudaWorkspace(request.problem) > 0) {
    return "Deformable convolution needs a workspace. Received: null";
  }
  if (const char* error = Misplaced(request.problem, *arguments)) return error;
  return kconv::deformable::RunOnCuda(request.problem,
                                      kconv::cuda::DeformArgsOf(*arguments),
                                      arguments->workspace, stream);
}
