#include "algorithms/winograd/transforms.h"

namespace kconv::winograd {

extern const TransformSet kTransformsBaseline;
#ifdef KCONV_X86_KERNELS
extern const TransformSet kTransformsAvx2;
extern const TransformSet kTransformsAvx512;
#endif

namespace {

const TransformSet& SetFor([[maybe_unused]] Isa isa) {
#ifdef KCONV_X86_KERNELS
  if (isa == Isa::kAvx512) return kTransformsAvx512;
  if (isa == Isa::kAvx2) return kTransformsAvx2;
#endif
  return kTransformsBaseline;
}

}  // namespace

template <>
const ImageTransforms<float>& TransformsOf(const Transforms& transforms) {
  return transforms.of_float32;
}
template <>
const ImageTransforms<BFloat16>& TransformsOf(const Transforms& transforms) {
  return transforms.of_bfloat16;
}
template <>
const ImageTransforms<Float16>& TransformsOf(const Transforms& transforms) {
  return transforms.of_float16;
}

const Transforms* FindTransforms(Isa isa, int outputs, int taps, int dims) {
  for (const Transforms& t : SetFor(isa).nested[dims - 1]) {
    if (t.outputs == outputs && t.taps == taps) return &t;
  }
  return nullptr;
}

}  // namespace kconv::winograd
