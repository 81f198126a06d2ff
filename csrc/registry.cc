#include "registry.h"

namespace kconv {

#define KCONV_ALGORITHM(family) extern const Algorithm kAlgorithm_##family;
#define KCONV_VARIANT(family, variant) \
  extern const Algorithm kAlgorithm_##family##_##variant;
#include "algorithms.inc"
#undef KCONV_ALGORITHM
#undef KCONV_VARIANT

const std::vector<const Algorithm*>& Algorithms() {
#define KCONV_ALGORITHM(family) &kAlgorithm_##family,
#define KCONV_VARIANT(family, variant) &kAlgorithm_##family##_##variant,
  static const std::vector<const Algorithm*> algorithms = {
#include "algorithms.inc"
  };
#undef KCONV_ALGORITHM
#undef KCONV_VARIANT
  return algorithms;
}

namespace {

// Of the candidates that accept the problem the one with the lowest estimate.
const Algorithm* Cheapest(const std::vector<const Algorithm*>& candidates,
                          const Problem& problem, Isa isa) {
  const Algorithm* best = nullptr;
  double best_seconds = 0;
  for (const Algorithm* algorithm : candidates) {
    if (algorithm->refuse(problem) != nullptr) continue;
    const double seconds = algorithm->cost(problem, ThisCpu(), isa);
    if (best == nullptr || seconds < best_seconds) {
      best = algorithm;
      best_seconds = seconds;
    }
  }
  return best;
}

}  // namespace

std::vector<const Algorithm*> Named(const std::string& name) {
  std::vector<const Algorithm*> named;
  for (const Algorithm* algorithm : Algorithms()) {
    const std::string own = algorithm->name;
    if (name == "auto" || (name == "auto:strict" && algorithm->is_strict) ||
        name == own || name == own.substr(0, own.find(':'))) {
      named.push_back(algorithm);
    }
  }
  return named;
}

const Algorithm* Resolve(const std::string& name, const Problem& problem,
                         Isa isa, std::string* error) {
  const std::vector<const Algorithm*> candidates = Named(name);
  if (candidates.empty()) {
    *error = "algorithm must be one of \"auto\", \"auto:strict\"";
    for (const Algorithm* known : Algorithms()) {
      *error += std::string(", \"") + known->name + "\"";
    }
    *error +=
        ", or the part of one before a colon. Received: algorithm=" + name;
    return nullptr;
  }
  const Algorithm* chosen = Cheapest(candidates, problem, isa);
  if (chosen == nullptr) {
    *error = std::string(candidates[0]->refuse(problem)) +
             " Received: algorithm=" + name;
  }
  return chosen;
}

}  // namespace kconv
