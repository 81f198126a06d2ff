#include "cuda/kconv_cuda.h"

#include <cstring>
#include <string>

#include "cuda/addresses.h"
#include "cuda/algorithms.h"
#include "cuda/problem.h"

namespace kconv::cuda {
namespace {

// Null if there is none of that name.
const GpuAlgorithm* Find(const char* name) {
  for (const GpuAlgorithm* a = kGpuAlgorithms; a->name != nullptr; ++a) {
    if (name != nullptr && std::strcmp(a->name, name) == 0) return a;
  }
  return nullptr;
}

// The algorithm and the problem, checked; `error` says what is wrong.
struct Request {
  const GpuAlgorithm* algorithm = nullptr;
  Problem problem;
  const char* error = nullptr;

  Request(const char* name, const kconv_cuda_problem* asked) {
    static thread_local std::string said;
    algorithm = Find(name);
    if (algorithm == nullptr) {
      said = "algorithm must be one that GPUs have. Received: algorithm=" +
             std::string(name == nullptr ? "null" : name);
      error = said.c_str();
      return;
    }
    said = ProblemOf(*asked, &problem);
    if (!said.empty()) {
      error = said.c_str();
    } else if (algorithm->refuse != nullptr) {
      error = algorithm->refuse(problem);
    }
  }
};

const char* Misplaced(const Problem& problem, const kconv_cuda_arguments& a) {
  const ConvShape& s = problem.shape;
  return AddressError({{a.input, s.InputElements()},
                       {a.filter, s.FilterElements()},
                       {a.output, s.OutputElements()},
                       {a.bias, problem.epilogue.bias ? 1 : 0}},
                      SizeOf(problem.dtype), a.workspace);
}

}  // namespace
}  // namespace kconv::cuda

using kconv::ConvArgs;
using kconv::cuda::Find;
using kconv::cuda::GpuAlgorithm;
using kconv::cuda::Misplaced;
using kconv::cuda::Request;

int kconv_cuda_interface() { return KCONV_CUDA_INTERFACE; }

const char* kconv_cuda_version() { return KCONV_VERSION; }

const char* kconv_cuda_algorithm(int number) {
  for (int i = 0; i <= number; ++i) {
    if (kconv::cuda::kGpuAlgorithms[i].name == nullptr) return nullptr;
  }
  return number < 0 ? nullptr : kconv::cuda::kGpuAlgorithms[number].name;
}

int kconv_cuda_is_strict(const char* algorithm) {
  const GpuAlgorithm* found = Find(algorithm);
  return found != nullptr && found->is_strict;
}

const char* kconv_cuda_refuse(const char* algorithm,
                              const kconv_cuda_problem* problem) {
  return Request(algorithm, problem).error;
}

int64_t kconv_cuda_workspace(const char* algorithm,
                             const kconv_cuda_problem* problem) {
  const Request request(algorithm, problem);
  return request.error ? -1 : request.algorithm->workspace(request.problem);
}

const char* kconv_cuda_run(const char* algorithm,
                           const kconv_cuda_problem* problem,
                           const kconv_cuda_arguments* arguments,
                           void* stream) {
  const Request request(algorithm, problem);
  if (request.error != nullptr) return request.error;
  if (request.problem.epilogue.bias != (arguments->bias != nullptr)) {
    return "A bias must be given where the problem has one.";
  }
  if (arguments->workspace == nullptr &&
      request.algorithm->workspace(request.problem) > 0) {
    return "The algorithm needs a workspace for this problem. Received: null";
  }
  if (const char* error = Misplaced(request.problem, *arguments)) return error;
  ConvArgs args;
  args.input = arguments->input;
  args.filter = arguments->filter;
  args.output = arguments->output;
  args.bias = arguments->bias;
  return request.algorithm->run(request.problem, args, arguments->workspace,
                                stream);
}
