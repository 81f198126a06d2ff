// Convolution by overlapping tiles of fast Fourier transforms: the passes.

#ifndef KCONV_ALGORITHMS_FFT_FFT_H_
#define KCONV_ALGORITHMS_FFT_FFT_H_

#include "algorithms/fft/plan.h"
#include "conv.h"

namespace kconv::fft {

// For the scheduler only: how fast transforms and products run, about.
inline constexpr double kMacsPerSecond = 2e10;

// What a pass takes: bytes that all threads share, and bytes for each.
struct Bytes {
  int64_t shared, worker;
};

// Matrix products of the channels of a group, for each frequency one.
template <typename Element>
Bytes WithinGroupsBytes(const Problem& problem, const Plan& plan, Isa isa);
template <typename Element>
void RunWithinGroups(const Problem& problem, const Plan& plan,
                     const ConvArgs& args, Context* ctx);

// Products of few channels, of as many groups as a vector has lanes.
template <typename Element>
Bytes AcrossGroupsBytes(const Problem& problem, const Plan& plan, Isa isa);
template <typename Element>
void RunAcrossGroups(const Problem& problem, const Plan& plan,
                     const ConvArgs& args, Context* ctx);

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_FFT_H_
