// Which algorithms there are, what they say of a problem, and which one runs.

#ifndef KCONV_REGISTRY_H_
#define KCONV_REGISTRY_H_

#include <string>
#include <vector>

#include "conv.h"

namespace kconv {

// In the order of algorithms.inc.
const std::vector<const Algorithm*>& Algorithms();

// The algorithms that a name allows: one ("winograd:f4"), a family of them
// ("winograd"), all ("auto") or all that are strict ("auto:strict"). Empty if
// there is no such name.
std::vector<const Algorithm*> Named(const std::string& name);

// Of those that a name allows and that accept the problem the one with the
// lowest estimate. Returns null and sets `error` to a sentence if there is
// none.
const Algorithm* Resolve(const std::string& name, const Problem& problem,
                         Isa isa, std::string* error);

}  // namespace kconv

#endif  // KCONV_REGISTRY_H_
