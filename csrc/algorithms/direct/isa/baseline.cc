#include "algorithms/direct/generic.h"

namespace kconv::direct {

extern const Kernels kBaseline;
const Kernels kBaseline = MakeKernels(kBaselineName);

}  // namespace kconv::direct
