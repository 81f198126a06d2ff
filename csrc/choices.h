// Choices that were measured on this machine: for a problem the name of the
// candidate that was fastest.

#ifndef KCONV_CHOICES_H_
#define KCONV_CHOICES_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "conv.h"

namespace kconv {

// All that decides what a problem costs, the epilogue aside, as words:
//   forward float32 channels_last 8x56x56x64 3x3x64x64 strides=1x1
//   dilation=1x1 padding=1+1,1+1 groups=1
std::string KeyOf(const Problem& problem);

// A number of threads and a key, and the name of a candidate.
using MeasuredChoices =
    std::vector<std::pair<std::pair<int, std::string>, std::string>>;

// Replaces all choices of the process.
void SetChoices(const MeasuredChoices& choices);

// The name of the candidate for a problem, or the empty string.
std::string FindChoice(const Problem& problem, int threads);

}  // namespace kconv

#endif  // KCONV_CHOICES_H_
