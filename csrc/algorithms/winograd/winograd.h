// Winograd convolution: every F(m, r) there is, its passes and what they need.

#ifndef KCONV_ALGORITHMS_WINOGRAD_WINOGRAD_H_
#define KCONV_ALGORITHMS_WINOGRAD_WINOGRAD_H_

#include "conv.h"

namespace kconv::winograd {

// What a pass takes.
struct Work {
  int64_t shared_bytes;  // of workspace, for all threads ...
  int64_t worker_bytes;  // ... and for each
  bool fits;             // whether the workspace stays within its bound
  double macs;           // time, in multiply-adds at the peak
};

// Forward and input gradient, with tiles of `outputs` results a dimension.
template <typename Element>
void RunImagePass(int outputs, const Problem& problem, const ConvArgs& args,
                  Context* ctx);
Work ImagePassWork(int outputs, const Problem& problem, Isa isa);

// The prepared filter of the forward pass, of any size of tiles.
int64_t PreparedFilterBytes(const Problem& problem, Isa isa);
void PrepareFilter(const Problem& problem, Isa isa, const void* filter,
                   void* to);

template <typename Element>
void RunFilterGradient(int outputs, const Problem& problem,
                       const ConvArgs& args, Context* ctx);
Work FilterGradientWork(int outputs, const Problem& problem, Isa isa);

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_WINOGRAD_H_
