#include "algorithms/grouped/generic.h"

namespace kconv::grouped {

extern const Kernels kAvx2;
const Kernels kAvx2 = MakeKernels<32>("avx2");

}  // namespace kconv::grouped
