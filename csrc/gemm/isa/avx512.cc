#include "gemm/generic.h"

namespace kconv {

extern const GemmKernel<float> kGemmAvx512Float;
extern const GemmKernel<double> kGemmAvx512Double;

const GemmKernel<float> kGemmAvx512Float =
    MakeGemmKernel<float, 64, 6, 4>("avx512");
const GemmKernel<double> kGemmAvx512Double =
    MakeGemmKernel<double, 64, 6, 4>("avx512");

}  // namespace kconv
