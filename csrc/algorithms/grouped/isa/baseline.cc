#include "algorithms/grouped/generic.h"

namespace kconv::grouped {

extern const Kernels kBaseline;
const Kernels kBaseline = MakeKernels<16>(kBaselineName);

}  // namespace kconv::grouped
