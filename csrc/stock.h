// TensorFlow's own kernels, as far as a choice must know them: the candidate
// "builtin". What they are called by, and which problems they take whatever the
// sizes, is the business of kconv/builtin.

#ifndef KCONV_STOCK_H_
#define KCONV_STOCK_H_

#include "conv.h"

namespace kconv {

inline constexpr char kStockName[] = "builtin";

// Null, or a sentence: why the sizes of a problem keep stock's kernels from it.
const char* StockRefuse(const Problem& problem);

// Estimated seconds on one core, as if stock shared its work among cores as
// kconv does. Its depthwise kernels share images only in the gradients, so that
// a batch of one takes one core.
double StockCost(const Problem& problem, const Cpu& cpu);

// "oneDNN" or "Eigen": what computes stock's convolutions here.
const char* StockEngine();

// Whether that is oneDNN, with AVX-512 that does not take 512 bits in halves.
bool StockIsOneDnnOfAvx512();

// Whether that is Eigen, with AVX2 as its widest vectors.
bool StockIsEigenOfAvx2();

}  // namespace kconv

#endif  // KCONV_STOCK_H_
