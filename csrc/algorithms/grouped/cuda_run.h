// Which kernels of grouped run for a problem, and by what: a GPU, or the host
// in its place.

#ifndef KCONV_ALGORITHMS_GROUPED_CUDA_RUN_H_
#define KCONV_ALGORITHMS_GROUPED_CUDA_RUN_H_

#include <cstdint>
#include <type_traits>

#include "algorithms/grouped/cuda_filter.h"
#include "algorithms/grouped/cuda_image.h"
#include "algorithms/grouped/cuda_plan.h"
#include "conv.h"
#include "cuda/slices.h"
#include "elements.h"

namespace kconv::grouped {

inline int64_t CudaWorkspaceBytes(const Problem& problem) {
  if (problem.pass != Pass::kFilterGradient) return 0;
  return CudaFilterPlanOf(problem).Slices() * problem.shape.FilterElements() *
         4;
}

// Memory that is not aligned is loaded and stored element by element.
inline void HeedAlignment(const void* image, cuda::Type type, CudaImage* of) {
  of->quads = of->quads && cuda::HoldsQuads(image, type);
}

template <int kChannels, typename Launcher>
const char* CudaRunImageAs(const CudaImagePlan& plan, const Problem& problem,
                           const ConvArgs& args, const Launcher& launch) {
  CudaImageKernel<kChannels> kernel;
  kernel.plan = plan;
  kernel.read = plan.flip ? args.output : args.input;
  kernel.filter = args.filter;
  kernel.bias = args.bias;
  kernel.activation = problem.epilogue.activation;
  kernel.written = plan.flip ? args.input : args.output;
  HeedAlignment(kernel.read, plan.type, &kernel.plan.read);
  HeedAlignment(kernel.written, plan.type, &kernel.plan.written);
  return launch(kernel, kernel.Launch());
}

template <typename Launcher>
const char* CudaRunImage(const Problem& problem, const ConvArgs& args,
                         const Launcher& launch) {
  const CudaImagePlan plan = CudaImagePlanOf(problem);
  return plan.channels == 4 ? CudaRunImageAs<4>(plan, problem, args, launch)
                            : CudaRunImageAs<8>(plan, problem, args, launch);
}

template <int kTaps, typename Launcher>
const char* CudaRunFilterAs(const CudaFilterPlan& plan, const ConvArgs& args,
                            float* partials, const Launcher& launch) {
  CudaFilterKernel<kTaps> kernel;
  kernel.plan = plan;
  kernel.input = args.input;
  kernel.output = args.output;
  kernel.partials = partials;
  HeedAlignment(args.input, plan.type, &kernel.plan.input);
  HeedAlignment(args.output, plan.type, &kernel.plan.output);
  return launch(kernel, kernel.Launch());
}

template <typename Launcher>
const char* CudaRunFilter(const Problem& problem, const ConvArgs& args,
                          void* workspace, const Launcher& launch) {
  const CudaFilterPlan plan = CudaFilterPlanOf(problem);
  auto* partials = static_cast<float*>(workspace);
  const char* error = plan.taps == 1
                          ? CudaRunFilterAs<1>(plan, args, partials, launch)
                          : CudaRunFilterAs<3>(plan, args, partials, launch);
  if (error != nullptr) return error;
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    // float64 is refused; its sums are of another type.
    if constexpr (!std::is_same_v<Element, double>) {
      const cuda::AddSlices<Element> add = {partials, plan.Slices(),
                                            problem.shape.FilterElements(),
                                            static_cast<Element*>(args.filter)};
      error = launch(add, add.Launch());
    }
  });
  return error;
}

template <typename Launcher>
const char* CudaRunBy(const Problem& problem, const ConvArgs& args,
                      void* workspace, const Launcher& launch) {
  return problem.pass == Pass::kFilterGradient
             ? CudaRunFilter(problem, args, workspace, launch)
             : CudaRunImage(problem, args, launch);
}

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_CUDA_RUN_H_
