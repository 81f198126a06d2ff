#include "algorithms/depthwise/generic.h"

namespace kconv::depthwise {

extern const Kernels kAvx512;
const Kernels kAvx512 = MakeKernels<64>("avx512");

}  // namespace kconv::depthwise
