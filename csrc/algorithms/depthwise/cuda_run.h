// Which kernels of depthwise run for a problem, and by what: a GPU, or the host
// in its place.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_CUDA_RUN_H_
#define KCONV_ALGORITHMS_DEPTHWISE_CUDA_RUN_H_

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "algorithms/depthwise/cuda_filter.h"
#include "algorithms/depthwise/cuda_image.h"
#include "algorithms/depthwise/cuda_plan.h"
#include "conv.h"
#include "cuda/slices.h"
#include "elements.h"

namespace kconv::depthwise {

inline int64_t CudaWorkspaceBytes(const Problem& problem) {
  if (problem.pass != Pass::kFilterGradient) return 0;
  return std::max<int64_t>(1, FilterPlanOf(problem).slices.count) *
         problem.shape.FilterElements() * 4;
}

// Calls body with a number as a type.
template <int kNumber, typename Body>
const char* WithNumber(const Body& body) {
  return body(std::integral_constant<int, kNumber>());
}

// Calls body(taps, stride, pitch) as the tiles have them.
template <typename Body>
const char* WithVariant(const CudaTiles& t, int pitch, const Body& body) {
  auto with_taps = [&](auto taps) {
    auto with_stride = [&](auto stride) {
      auto with_pitch = [&](auto number) { return body(taps, stride, number); };
      return pitch == 1   ? WithNumber<1>(with_pitch)
             : pitch == 8 ? WithNumber<8>(with_pitch)
                          : WithNumber<32>(with_pitch);
    };
    return t.stride_x == 1 ? WithNumber<1>(with_stride)
                           : WithNumber<2>(with_stride);
  };
  return t.taps == 3   ? WithNumber<3>(with_taps)
         : t.taps == 5 ? WithNumber<5>(with_taps)
                       : WithNumber<7>(with_taps);
}

// Memory that is not aligned is loaded element by element.
inline void HeedAlignment(std::initializer_list<const void*> images,
                          CudaTiles* t) {
  for (const void* image : images) {
    if (reinterpret_cast<uintptr_t>(image) % 16 != 0) t->vector = 1;
  }
}

template <typename Launcher>
const char* CudaRunImage(const Problem& problem, const ConvArgs& args,
                         const Launcher& launch) {
  const bool gradient = problem.pass == Pass::kInputGradient;
  CudaImagePlan plan = ImagePlanOf(problem);
  HeedAlignment({args.input, args.output}, &plan.tiles);
  const CudaTiles& t = plan.tiles;
  return WithVariant(
      t, plan.read.column, [&](auto taps, auto stride, auto pitch) {
        CudaImageKernel<taps(), stride(), pitch()> kernel;
        kernel.plan = plan;
        kernel.read_walk = CudaWalk(plan.read, t.last, t.vector);
        kernel.written_walk = CudaWalk(plan.written, t.last, t.vector);
        kernel.flip = gradient;
        kernel.read = gradient ? args.output : args.input;
        kernel.filter = args.filter;
        kernel.bias = args.bias;
        kernel.activation = problem.epilogue.activation;
        kernel.written = gradient ? args.input : args.output;
        return launch(kernel, kernel.Launch());
      });
}

template <typename Launcher>
const char* CudaRunFilter(const Problem& problem, const ConvArgs& args,
                          void* workspace, const Launcher& launch) {
  CudaFilterPlan plan = FilterPlanOf(problem);
  HeedAlignment({args.input, args.output}, &plan.tiles);
  const CudaTiles& t = plan.tiles;
  const int64_t slices = std::max<int64_t>(1, plan.slices.count);
  auto* partials = static_cast<float*>(workspace);
  const char* error =
      WithVariant(t, plan.read.column, [&](auto taps, auto stride, auto pitch) {
        CudaFilterKernel<taps(), stride(), pitch()> kernel;
        kernel.plan = plan;
        kernel.read_walk = CudaWalk(plan.read, t.last, t.vector);
        kernel.gradient_walk = CudaWalk(plan.gradient, t.last, t.vector);
        kernel.slices = slices;
        kernel.tiles = plan.slices.total;
        kernel.slice_tiles = plan.slices.size;
        kernel.read = args.input;
        kernel.gradient = args.output;
        kernel.partials = partials;
        return launch(kernel, kernel.Launch());
      });
  if (error != nullptr) return error;
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    // float64 is refused; its sums are of another type.
    if constexpr (!std::is_same_v<Element, double>) {
      const cuda::AddSlices<Element> add = {partials, slices,
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

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_CUDA_RUN_H_
