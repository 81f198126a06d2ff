#include "algorithms/grouped/generic.h"

namespace kconv::grouped {

extern const Kernels kAvx512;
const Kernels kAvx512 = MakeKernels<64>("avx512");

}  // namespace kconv::grouped
