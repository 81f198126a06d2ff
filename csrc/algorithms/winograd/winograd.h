// Winograd convolution: every F(m, r) there is, its passes and what they need.

#ifndef KCONV_ALGORITHMS_WINOGRAD_WINOGRAD_H_
#define KCONV_ALGORITHMS_WINOGRAD_WINOGRAD_H_

#include "conv.h"

namespace kconv::winograd {

// Forward and input gradient, with tiles of `outputs` results a dimension.
template <typename Element>
void RunImagePass(int outputs, const Problem& problem, const ConvArgs& args,
                  Context* ctx);
int64_t ImagePassBytes(int outputs, const Problem& problem, Isa isa,
                       int threads);

template <typename Element>
void RunFilterGradient(int outputs, const Problem& problem,
                       const ConvArgs& args, Context* ctx);
int64_t FilterGradientBytes(int outputs, const Problem& problem, Isa isa,
                            int threads);

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_WINOGRAD_H_
