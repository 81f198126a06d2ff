// The passes of the algorithm `depthwise`.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_PASSES_H_
#define KCONV_ALGORITHMS_DEPTHWISE_PASSES_H_

#include <cstdint>

#include "conv.h"

namespace kconv::depthwise {

// Filters of one channel, and taps: bounds for what a worker packs.
inline constexpr int64_t kMaxRepeat = 256;
inline constexpr int64_t kMaxTaps = int64_t{1} << 16;

// For the scheduler only: how fast the kernels run, about.
inline constexpr double kMacsPerSecond = 2e10;

// Forward and input gradient.
int64_t ImagePassWorkspace(const Problem& problem, Isa isa, int threads);
template <typename Element>
void RunImagePass(const Problem& problem, const ConvArgs& args, Context* ctx);

int64_t FilterGradientWorkspace(const Problem& problem, Isa isa, int threads);
template <typename Element>
void RunFilterGradient(const Problem& problem, const ConvArgs& args,
                       Context* ctx);

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_PASSES_H_
