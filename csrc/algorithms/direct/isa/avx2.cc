#include "algorithms/direct/generic.h"

namespace kconv::direct {

extern const Kernels kAvx2;
const Kernels kAvx2 = MakeKernels("avx2");

}  // namespace kconv::direct
