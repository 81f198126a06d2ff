#include "registry.h"

namespace kconv {

#define KCONV_ALGORITHM(name) extern const Algorithm kAlgorithm_##name;
#include "algorithms.inc"
#undef KCONV_ALGORITHM

const std::vector<const Algorithm*>& Algorithms() {
#define KCONV_ALGORITHM(name) &kAlgorithm_##name,
  static const std::vector<const Algorithm*> algorithms = {
#include "algorithms.inc"
  };
#undef KCONV_ALGORITHM
  return algorithms;
}

const Algorithm* FindAlgorithm(const std::string& name) {
  for (const Algorithm* algorithm : Algorithms()) {
    if (name == algorithm->name) return algorithm;
  }
  return nullptr;
}

const Algorithm* Choose(const Problem& problem, Isa isa) {
  const Algorithm* best = nullptr;
  double best_seconds = 0;
  for (const Algorithm* algorithm : Algorithms()) {
    if (algorithm->refuse(problem) != nullptr) continue;
    const double seconds = algorithm->cost(problem, ThisCpu(), isa);
    if (best == nullptr || seconds < best_seconds) {
      best = algorithm;
      best_seconds = seconds;
    }
  }
  return best;
}

const Algorithm* Resolve(const std::string& name, const Problem& problem,
                         Isa isa, std::string* error) {
  if (name == "auto") {
    const Algorithm* chosen = Choose(problem, isa);
    if (chosen == nullptr) *error = "No algorithm takes this problem.";
    return chosen;
  }
  const Algorithm* algorithm = FindAlgorithm(name);
  if (algorithm == nullptr) {
    *error = "algorithm must be one of \"auto\"";
    for (const Algorithm* known : Algorithms()) {
      *error += std::string(", \"") + known->name + "\"";
    }
    *error += ". Received: algorithm=" + name;
    return nullptr;
  }
  if (const char* refusal = algorithm->refuse(problem)) {
    *error = std::string(refusal) + " Received: algorithm=" + name;
    return nullptr;
  }
  return algorithm;
}

}  // namespace kconv
