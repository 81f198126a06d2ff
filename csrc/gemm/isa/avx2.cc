#include "gemm/generic.h"

namespace kconv {

extern const GemmKernel<float> kGemmAvx2Float;
extern const GemmKernel<double> kGemmAvx2Double;

const GemmKernel<float> kGemmAvx2Float =
    MakeGemmKernel<float, 32, 6, 2>("avx2");
const GemmKernel<double> kGemmAvx2Double =
    MakeGemmKernel<double, 32, 6, 2>("avx2");

}  // namespace kconv
