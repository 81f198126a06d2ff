#include "deformable/generic.h"

namespace kconv::deformable {

extern const Kernels kAvx512;
const Kernels kAvx512 = MakeKernels<64>("avx512");

}  // namespace kconv::deformable
