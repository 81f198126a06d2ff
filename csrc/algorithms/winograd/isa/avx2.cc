#include "algorithms/winograd/generic.h"

namespace kconv::winograd {

extern const TransformSet kTransformsAvx2;
const TransformSet kTransformsAvx2 = MakeTransformSet<32>("avx2");

}  // namespace kconv::winograd
