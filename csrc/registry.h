// Which algorithms there are, what they say of a problem, and which one runs.

#ifndef KCONV_REGISTRY_H_
#define KCONV_REGISTRY_H_

#include <string>
#include <vector>

#include "conv.h"

namespace kconv {

// In the order of algorithms.inc.
const std::vector<const Algorithm*>& Algorithms();

// Null if there is no such name.
const Algorithm* FindAlgorithm(const std::string& name);

// Of those that accept the problem the one with the lowest estimate; null if
// none does.
const Algorithm* Choose(const Problem& problem, Isa isa);

// The algorithm of that name or, for "auto", the chosen one. Returns null and
// sets `error` to a sentence if there is none or it refuses.
const Algorithm* Resolve(const std::string& name, const Problem& problem,
                         Isa isa, std::string* error);

}  // namespace kconv

#endif  // KCONV_REGISTRY_H_
