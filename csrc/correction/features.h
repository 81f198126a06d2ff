// What a correction of estimates is learned from: a problem in numbers.

#ifndef KCONV_CORRECTION_FEATURES_H_
#define KCONV_CORRECTION_FEATURES_H_

#include <vector>

#include "conv.h"

namespace kconv::correction {

// Sizes as logarithms of base 2, what a rounded-up size wastes likewise, and
// properties as 0 or 1. None of its tensors may be empty.
std::vector<float> FeaturesOf(const Problem& problem);

}  // namespace kconv::correction

#endif  // KCONV_CORRECTION_FEATURES_H_
