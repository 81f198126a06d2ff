#include "gemm/gemm.h"

namespace kconv {

extern const GemmKernel<float> kGemmBaselineFloat, kGemmAvx2Float,
    kGemmAvx512Float;
extern const GemmKernel<double> kGemmBaselineDouble, kGemmAvx2Double,
    kGemmAvx512Double;

#ifdef KCONV_X86_KERNELS
template <>
const GemmKernel<float>& GemmKernelFor<float>(Isa isa) {
  return isa == Isa::kAvx512 ? kGemmAvx512Float
         : isa == Isa::kAvx2 ? kGemmAvx2Float
                             : kGemmBaselineFloat;
}

template <>
const GemmKernel<double>& GemmKernelFor<double>(Isa isa) {
  return isa == Isa::kAvx512 ? kGemmAvx512Double
         : isa == Isa::kAvx2 ? kGemmAvx2Double
                             : kGemmBaselineDouble;
}
#else
template <>
const GemmKernel<float>& GemmKernelFor<float>(Isa) {
  return kGemmBaselineFloat;
}

template <>
const GemmKernel<double>& GemmKernelFor<double>(Isa) {
  return kGemmBaselineDouble;
}
#endif

}  // namespace kconv
