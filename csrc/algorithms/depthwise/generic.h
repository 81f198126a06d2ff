// The kernels, written once over the width of vectors.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_GENERIC_H_
#define KCONV_ALGORITHMS_DEPTHWISE_GENERIC_H_

#include "algorithms/depthwise/generic_filter.h"
#include "algorithms/depthwise/generic_image.h"
#include "algorithms/depthwise/generic_panels.h"

namespace kconv::depthwise {
namespace {

template <typename T, int kBytes>
constexpr Kernel<T> MakeKernel(const char* isa) {
  return {isa, Simd<T, kBytes>::kLanes, ImageKernel<T, kBytes>::Run,
          FilterKernel<T, kBytes>::Run};
}

template <typename Element, int kBytes>
constexpr Panels<Element> MakePanels() {
  return {Gather<Element, kBytes>, Scatter<Element>};
}

template <int kBytes>
constexpr Kernels MakeKernels(const char* isa) {
  return {MakeKernel<float, kBytes>(isa), MakeKernel<double, kBytes>(isa),
          MakePanels<float, kBytes>(),    MakePanels<double, kBytes>(),
          MakePanels<BFloat16, kBytes>(), MakePanels<Float16, kBytes>()};
}

}  // namespace
}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_GENERIC_H_
