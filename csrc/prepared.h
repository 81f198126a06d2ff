// Prepared filters: what an algorithm's `prepare` makes of a filter, behind a
// header that tells which filters and which kernels it is for. They belong to
// one machine and one build, and are not for files. The header does not tell
// the values of the filter: that they are those is the caller's to know.

#ifndef KCONV_PREPARED_H_
#define KCONV_PREPARED_H_

#include <string>

#include "conv.h"

namespace kconv {

// Bytes of the prepared filter for those algorithms that a name allows, its
// header included. 0 if none of them has a use for one.
int64_t PreparedBytes(const std::string& algorithm, const Problem& problem,
                      Isa isa);

// Writes them, to memory that is 64-byte aligned.
void PrepareFilter(const std::string& algorithm, const Problem& problem,
                   Isa isa, const void* filter, void* to);

// The empty string, or a sentence: why these bytes are no prepared filter for
// this problem. Those of another machine or build, as of a frozen graph, are no
// error.
std::string PreparedError(const Problem& problem, Isa isa, const void* prepared,
                          int64_t bytes);

// What an algorithm takes as ConvArgs::prepared, of bytes without an error.
// Null if it has no use for them, or if they are of another machine or build.
const void* PreparedFor(const Algorithm& algorithm, const Problem& problem,
                        Isa isa, const void* prepared);

}  // namespace kconv

#endif  // KCONV_PREPARED_H_
