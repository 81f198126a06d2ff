#include "deformable/generic.h"
#include "isa.h"

namespace kconv::deformable {

extern const Kernels kBaseline;
const Kernels kBaseline = MakeKernels<16>(kBaselineName);

}  // namespace kconv::deformable
