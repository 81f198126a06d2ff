// im2col and a matrix product, block by block. The three passes:
//
//   forward          output[pixel][o] = patches(input) [pixel][k] *
//   filter[k][o] input gradient   the same on each phase of the input, see
//   patches.h filter gradient  filter[k][o] = patches(input)^T [k][pixel] *
//   grad[pixel][o]
//
// Channels first swaps the operands of the first two, so that pixels stay
// contiguous: output[o][pixel] = filter^T [o][k] * patches [k][pixel].

#ifndef KCONV_ALGORITHMS_GEMM_GEMM_H_
#define KCONV_ALGORITHMS_GEMM_GEMM_H_

#include "conv.h"

namespace kconv::gemm {

// Forward and input gradient, of elements Element.
template <typename Element>
void RunImagePass(const Problem& problem, const ConvArgs& args, Context* ctx);

template <typename Element>
void RunFilterGradient(const Problem& problem, const ConvArgs& args,
                       Context* ctx);

// Bytes of the filter packed beforehand for an image pass; 0 if it is not.
int64_t PackedFilterBytes(const Problem& problem, Isa isa);

// Bytes of the filter gradient's partial results, shared by all workers.
int64_t PartialBytes(const Problem& problem);

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_GEMM_H_
