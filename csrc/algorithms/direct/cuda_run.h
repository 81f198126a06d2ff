// Which kernels of direct run for a problem, and by what: a GPU, or the host in
// its place.

#ifndef KCONV_ALGORITHMS_DIRECT_CUDA_RUN_H_
#define KCONV_ALGORITHMS_DIRECT_CUDA_RUN_H_

#include <algorithm>
#include <cstdint>

#include "algorithms/direct/cuda_kernels.h"
#include "algorithms/direct/window.h"
#include "conv.h"
#include "cuda/slices.h"
#include "elements.h"
#include "split.h"

namespace kconv::direct {

// The output's pixels, in slices, so that small filters keep a GPU busy too.
inline Split CudaSlices(const Problem& problem) {
  constexpr int64_t kWantedBlocks = 2048;
  const ConvShape& s = problem.shape;
  const int64_t pixels = s.batch * s.OutputPixels();
  const int64_t sum_bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  const int64_t count =
      cuda::SliceCount(pixels, CeilDivide(s.FilterElements(), kCudaThreads),
                       kWantedBlocks, s.FilterElements() * sum_bytes);
  return Split(pixels, count, 1);
}

inline int64_t CudaWorkspaceBytes(const Problem& problem) {
  if (problem.pass != Pass::kFilterGradient) return 0;
  const int64_t slices = CudaSlices(problem).count;
  const int64_t sum_bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  return slices <= 1 ? 0 : slices * problem.shape.FilterElements() * sum_bytes;
}

template <typename Element, typename Launcher>
const char* CudaRunAs(const Problem& problem, const ConvArgs& args,
                      void* workspace, const Launcher& launch) {
  using Sum = SumType<Element>;
  const Window window = WindowOf(problem.shape);
  auto* input = static_cast<Element*>(args.input);
  auto* filter = static_cast<Element*>(args.filter);
  auto* output = static_cast<Element*>(args.output);
  const auto* bias = static_cast<const Element*>(args.bias);
  const Activation activation = problem.epilogue.activation;
  switch (problem.pass) {
    case Pass::kForward: {
      const CudaForward<Element> kernel = {{window, input, filter, bias,
                                            activation, output,
                                            problem.shape.OutputElements()}};
      return launch(kernel, kernel.Launch());
    }
    case Pass::kInputGradient: {
      const CudaInputGradient<Element> kernel = {
          {window, output, filter, bias, activation, input,
           problem.shape.InputElements()}};
      return launch(kernel, kernel.Launch());
    }
    case Pass::kFilterGradient:
      break;
  }
  const Split slices = CudaSlices(problem);
  CudaFilterGradient<Element> kernel;
  kernel.s = window;
  kernel.input = input;
  kernel.output = output;
  kernel.partials = slices.count > 1 ? static_cast<Sum*>(workspace) : nullptr;
  kernel.filter = filter;
  kernel.elements = problem.shape.FilterElements();
  // Without pixels one slice writes zeros.
  kernel.slices = std::max<int64_t>(1, slices.count);
  kernel.pixels = slices.total;
  kernel.slice_pixels = slices.size;
  const char* error = launch(kernel, kernel.Launch());
  if (error != nullptr || kernel.partials == nullptr) return error;
  const cuda::AddSlices<Element> add = {kernel.partials, kernel.slices,
                                        kernel.elements, filter};
  return launch(add, add.Launch());
}

template <typename Launcher>
const char* CudaRunBy(const Problem& problem, const ConvArgs& args,
                      void* workspace, const Launcher& launch) {
  const char* error = nullptr;
  WithElement(problem.dtype, [&](auto element) {
    error = CudaRunAs<decltype(element)>(problem, args, workspace, launch);
  });
  return error;
}

}  // namespace kconv::direct

#endif  // KCONV_ALGORITHMS_DIRECT_CUDA_RUN_H_
