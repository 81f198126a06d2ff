#include "algorithms/depthwise/generic.h"

namespace kconv::depthwise {

extern const Kernels kAvx2;
const Kernels kAvx2 = MakeKernels<32>("avx2");

}  // namespace kconv::depthwise
