#include "algorithms/fft/generic.h"

namespace kconv::fft {

extern const TransformSet kTransformsAvx512;
const TransformSet kTransformsAvx512 = MakeTransformSet<64>("avx512");

}  // namespace kconv::fft
