#include "algorithms/depthwise/generic.h"

namespace kconv::depthwise {

extern const Kernels kBaseline;
const Kernels kBaseline = MakeKernels<16>(kBaselineName);

}  // namespace kconv::depthwise
