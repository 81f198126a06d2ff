#include "deformable/deformable.h"

#include <algorithm>

#include "deformable/passes.h"
#include "elements.h"

namespace kconv {
namespace deformable {

extern const Kernels kBaseline, kAvx2, kAvx512;

namespace {

const Kernels& KernelsFor(Isa isa) {
#ifdef KCONV_X86_KERNELS
  if (isa == Isa::kAvx512) return kAvx512;
  if (isa == Isa::kAvx2) return kAvx2;
#endif
  static_cast<void>(isa);
  return kBaseline;
}

template <typename Element>
void FillZeros(void* to, int64_t count) {
  std::fill_n(static_cast<Element*>(to), count, Element{});
}

// Without output pixels only gradients are left, and these are zero.
template <typename Element>
void RunEmpty(const DeformProblem& problem, const DeformArgs& args) {
  const ConvShape& s = problem.shape.conv;
  if (problem.pass == Pass::kInputGradient) {
    FillZeros<Element>(args.result, s.InputElements());
  } else if (problem.pass == Pass::kFilterGradient) {
    FillZeros<Element>(args.result, s.FilterElements());
  }
}

}  // namespace

template <>
const Kernel<float>& KernelFor<float>(Isa isa) {
  return KernelsFor(isa).float32;
}
template <>
const Kernel<double>& KernelFor<double>(Isa isa) {
  return KernelsFor(isa).float64;
}
template <>
const Kernel<BFloat16>& KernelFor<BFloat16>(Isa isa) {
  return KernelsFor(isa).bfloat16;
}
template <>
const Kernel<Float16>& KernelFor<Float16>(Isa isa) {
  return KernelsFor(isa).float16;
}

}  // namespace deformable

int64_t DeformWorkspace(const DeformProblem& problem, Isa isa, int threads) {
  int64_t bytes = 0;
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    switch (problem.pass) {
      case Pass::kForward:
        bytes = deformable::ForwardWorkspace<Element>(problem, isa, threads);
        return;
      case Pass::kInputGradient:
        bytes =
            deformable::ImageGradientWorkspace<Element>(problem, isa, threads);
        return;
      case Pass::kFilterGradient:
        bytes =
            deformable::FilterGradientWorkspace<Element>(problem, isa, threads);
        return;
    }
  });
  return bytes;
}

void RunDeform(const DeformProblem& problem, const DeformArgs& args,
               Context* ctx) {
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    ctx->isa_ran = deformable::KernelFor<Element>(ctx->isa).isa;
    if (problem.shape.Pixels() == 0) {
      return deformable::RunEmpty<Element>(problem, args);
    }
    switch (problem.pass) {
      case Pass::kForward:
        return deformable::RunForward<Element>(problem, args, ctx);
      case Pass::kInputGradient:
        return deformable::RunImageGradient<Element>(problem, args, ctx);
      case Pass::kFilterGradient:
        return deformable::RunFilterGradient<Element>(problem, args, ctx);
    }
  });
}

}  // namespace kconv
