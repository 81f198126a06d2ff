#include "gemm/generic.h"

namespace kconv {

extern const GemmKernel<float> kGemmBaselineFloat;
extern const GemmKernel<double> kGemmBaselineDouble;

const GemmKernel<float> kGemmBaselineFloat =
    MakeGemmKernel<float, 16, 4, 2>(kBaselineName);
const GemmKernel<double> kGemmBaselineDouble =
    MakeGemmKernel<double, 16, 4, 2>(kBaselineName);

}  // namespace kconv
