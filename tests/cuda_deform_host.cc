// Deformable convolution of the GPU library on the host, as cuda_host.cc has
// the plain one.

#include <cstdint>
#include <cstring>

#include "cuda/kconv_cuda.h"
#include "cuda/problem.h"
#include "cuda_host.h"
#include "deformable/cuda.h"
#include "deformable/cuda_run.h"

namespace kconv {
namespace {

// A copy of what is at `data`, as long as it must be and off its alignment; it
// stands in the place of `data`.
template <typename Pointer>
host::Memory Borrow(Pointer* data, int64_t elements, int64_t size,
                    bool is_written) {
  const int64_t moved = host::manner.shift * size;
  host::Memory copy = host::Allocate(elements * size + moved);
  if (!is_written && elements > 0 && *data != nullptr) {
    std::memcpy(copy.get() + moved, *data,
                static_cast<size_t>(elements * size));
  }
  *data = copy.get() + moved;
  return copy;
}

}  // namespace

namespace deformable {

const char* RefuseOnCuda(const DeformProblem& problem) {
  return CudaRefusal(problem);
}

int64_t CudaWorkspace(const DeformProblem& problem) {
  return CudaWorkspaceBytes(problem);
}

const char* RunOnCuda(const DeformProblem& problem, const DeformArgs& args,
                      void* workspace, void*) {
  ++host::runs;
  const ConvShape& s = problem.shape.conv;
  const int64_t size = SizeOf(problem.dtype);
  const int64_t points = problem.shape.Pixels() * problem.shape.Points();
  const bool image = problem.pass == Pass::kInputGradient;
  const int64_t elements = problem.pass == Pass::kForward ? s.OutputElements()
                           : image                        ? s.InputElements()
                                                          : s.FilterElements();
  DeformArgs moved = args;
  const host::Memory operands[] = {
      Borrow(&moved.input, s.InputElements(), size, false),
      // Whatever a caller gives as the filter whose gradient is computed.
      Borrow(&moved.filter,
             problem.pass == Pass::kFilterGradient ? 0 : s.FilterElements(),
             size, false),
      Borrow(&moved.offsets, 2 * points, size, false),
      Borrow(&moved.mask, args.mask == nullptr ? 0 : points, size, false),
      Borrow(&moved.output, args.output == nullptr ? 0 : s.OutputElements(),
             size, false)};
  const struct {
    host::Memory copy;
    void* to;
    int64_t elements;
  } results[] = {
      {Borrow(&moved.result, elements, size, true), args.result, elements},
      {Borrow(&moved.offsets_gradient, image ? 2 * points : 0, size, true),
       args.offsets_gradient, image ? 2 * points : 0},
      {Borrow(&moved.mask_gradient, image && problem.mask ? points : 0, size,
              true),
       args.mask_gradient, image && problem.mask ? points : 0}};
  const int64_t bytes = CudaWorkspaceBytes(problem);
  const host::Memory own = host::Allocate(bytes);
  // Whoever calls must have given so much.
  if (bytes > 0) std::memset(workspace, 0xff, static_cast<size_t>(bytes));
  const char* error = CudaRunBy(problem, moved, own.get(),
                                host::Launcher(host::manner.backwards));
  for (const auto& result : results) {
    if (result.elements == 0) continue;
    std::memcpy(result.to, result.copy.get() + host::manner.shift * size,
                static_cast<size_t>(result.elements * size));
  }
  return error;
}

}  // namespace deformable
}  // namespace kconv

extern "C" {

// As kconv_host_launch.
const char* kconv_host_deform_launch(const kconv_cuda_deform* asked,
                                     int64_t* launch) {
  kconv::DeformProblem problem;
  if (!kconv::cuda::DeformProblemOf(*asked, &problem).empty())
    return "Problem.";
  kconv::cuda::Launch most;
  const char* error = kconv::deformable::CudaRunBy(
      problem, kconv::DeformArgs(), nullptr, kconv::host::Recorder(&most));
  launch[0] = most.blocks;
  launch[1] = most.threads;
  launch[2] = most.shared_bytes;
  return error;
}

}  // extern "C"
