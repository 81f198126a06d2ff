#include "algorithms/winograd/generic.h"

namespace kconv::winograd {

extern const TransformSet kTransformsBaseline;
const TransformSet kTransformsBaseline = MakeTransformSet<16>(kBaselineName);

}  // namespace kconv::winograd
