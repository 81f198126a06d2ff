#include "algorithms/fft/generic.h"

namespace kconv::fft {

extern const TransformSet kTransformsAvx2;
const TransformSet kTransformsAvx2 = MakeTransformSet<32>("avx2");

}  // namespace kconv::fft
