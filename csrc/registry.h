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
const std::vector<const Algorithm*>& Named(const std::string& name);

// Whether a name leaves the choice open.
bool IsAuto(const std::string& name);

// What a choice heeds beside the problem.
struct Terms {
  Isa isa = Isa::kBaseline;
  int threads = 1;
  // Whether the choice must be the same in every process, for any number of
  // threads: nothing measured counts.
  bool deterministic = false;
  // Whether TensorFlow's own kernel is a candidate of "auto".
  bool with_stock = false;
};

// What runs: an algorithm of kconv, or TensorFlow's own kernel, or nothing.
struct Choice {
  const Algorithm* algorithm = nullptr;
  bool is_stock = false;
  bool is_measured = false;  // else estimated

  const char* Name() const;
};

// Why an algorithm does not take a problem that a name would let it take: it
// refuses, or needs more workspace than "auto" is allowed. Null if it does.
const char* WhyNot(const Algorithm& algorithm, const std::string& name,
                   const Problem& problem, const Terms& terms);

// The same of TensorFlow's own kernel, under "auto".
const char* WhyNotStock(const Problem& problem, const Terms& terms);

// Of the candidates that a name allows and that accept the problem the one that
// was measured to be fastest (choices.h), else the one with the lowest
// estimate. An empty choice if there is none.
Choice Choose(const std::string& name, const Problem& problem,
              const Terms& terms);

// The algorithm of kconv that Choose takes. Returns null and sets `error` to a
// sentence if there is none.
const Algorithm* Resolve(const std::string& name, const Problem& problem,
                         const Terms& terms, std::string* error);

}  // namespace kconv

#endif  // KCONV_REGISTRY_H_
