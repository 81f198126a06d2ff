#include "algorithms/direct/generic.h"

namespace kconv::direct {

extern const Kernels kAvx512;
const Kernels kAvx512 = MakeKernels("avx512");

}  // namespace kconv::direct
