#include "algorithms/fft/generic.h"

namespace kconv::fft {

extern const TransformSet kTransformsBaseline;
const TransformSet kTransformsBaseline = MakeTransformSet<16>(kBaselineName);

}  // namespace kconv::fft
