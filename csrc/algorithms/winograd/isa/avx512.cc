#include "algorithms/winograd/generic.h"

namespace kconv::winograd {

extern const TransformSet kTransformsAvx512;
const TransformSet kTransformsAvx512 = MakeTransformSet<64>("avx512");

}  // namespace kconv::winograd
