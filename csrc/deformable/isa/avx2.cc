#include "deformable/generic.h"

namespace kconv::deformable {

extern const Kernels kAvx2;
const Kernels kAvx2 = MakeKernels<32>("avx2");

}  // namespace kconv::deformable
