// The kernels of an instruction set, written once over the width of its
// vectors; isa/*.cc instantiate them.

#ifndef KCONV_ALGORITHMS_GROUPED_GENERIC_H_
#define KCONV_ALGORITHMS_GROUPED_GENERIC_H_

#include "algorithms/grouped/staging.h"
#include "algorithms/grouped/thin.h"
#include "algorithms/grouped/wide.h"

namespace kconv::grouped {
namespace {

// Two groups, or more, share a vector.
template <typename T, int kBytes>
constexpr bool HasSlot(int slot) {
  return 2 * slot <= Simd<T, kBytes>::kLanes;
}

template <typename T, int kBytes>
void RunImageRow(const ImageRow<T>& r) {
  if constexpr (HasSlot<T, kBytes>(2)) {
    if (r.slot == 2) return ThinRow<T, kBytes, 2>(r);
  }
  if constexpr (HasSlot<T, kBytes>(4)) {
    if (r.slot == 4) return ThinRow<T, kBytes, 4>(r);
  }
  if constexpr (HasSlot<T, kBytes>(8)) {
    if (r.slot == 8) return ThinRow<T, kBytes, 8>(r);
  }
  WideRow<T, kBytes>(r);
}

template <typename T, int kBytes>
void RunFilterRows(const FilterRows<T>& r) {
  if constexpr (HasSlot<T, kBytes>(2)) {
    if (r.slot == 2) return ThinFilter<T, kBytes, 2>(r);
  }
  if constexpr (HasSlot<T, kBytes>(4)) {
    if (r.slot == 4) return ThinFilter<T, kBytes, 4>(r);
  }
  if constexpr (HasSlot<T, kBytes>(8)) {
    if (r.slot == 8) return ThinFilter<T, kBytes, 8>(r);
  }
  WideFilter<T, kBytes>(r);
}

template <typename Element, int kBytes>
constexpr Kernel<Element> MakeKernel(const char* isa) {
  using Sum = SumType<Element>;
  return {isa,
          Simd<Sum, kBytes>::kLanes,
          Stage<Element, kBytes>,
          Store<Element>,
          RunImageRow<Sum, kBytes>,
          RunFilterRows<Sum, kBytes>};
}

template <int kBytes>
constexpr Kernels MakeKernels(const char* isa) {
  return {MakeKernel<float, kBytes>(isa), MakeKernel<double, kBytes>(isa),
          MakeKernel<BFloat16, kBytes>(isa), MakeKernel<Float16, kBytes>(isa)};
}

}  // namespace
}  // namespace kconv::grouped

#undef KCONV_INLINE

#endif  // KCONV_ALGORITHMS_GROUPED_GENERIC_H_
