#include "registry.h"

#include <algorithm>
#include <map>

#include "choices.h"
#include "correction/correction.h"
#include "stock.h"
#include "workspace_limit.h"

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

const std::vector<const Algorithm*>& Named(const std::string& name) {
  using Names = std::map<std::string, std::vector<const Algorithm*>>;
  // Asked for in every call of an op.
  static const Names names = [] {
    Names made;
    for (const Algorithm* algorithm : Algorithms()) {
      const std::string own = algorithm->name;
      const std::string family = own.substr(0, own.find(':'));
      made["auto"].push_back(algorithm);
      if (algorithm->is_strict) made["auto:strict"].push_back(algorithm);
      made[own].push_back(algorithm);
      if (family != own) made[family].push_back(algorithm);
    }
    return made;
  }();
  static const std::vector<const Algorithm*> none;
  const auto found = names.find(name);
  return found == names.end() ? none : found->second;
}

bool IsAuto(const std::string& name) {
  return name == "auto" || name == "auto:strict";
}

const char* Choice::Name() const {
  return is_stock ? kStockName : algorithm ? algorithm->name : nullptr;
}

const char* WhyNot(const Algorithm& algorithm, const std::string& name,
                   const Problem& problem, const Terms& terms) {
  const char* refusal = algorithm.refuse(problem);
  if (refusal != nullptr || !IsAuto(name)) return refusal;
  const int64_t limit = WorkspaceLimit();
  if (limit == kNoWorkspaceLimit) return nullptr;
  // A choice that the number of threads must not sway is made as for many.
  constexpr int kManyThreads = 64;
  const int threads = terms.deterministic
                          ? std::max(terms.threads, kManyThreads)
                          : terms.threads;
  if (algorithm.workspace(problem, terms.isa, threads) > limit) {
    return "It needs more workspace than the limit.";
  }
  return nullptr;
}

const char* WhyNotStock(const Problem& problem, const Terms& terms) {
  if (terms.deterministic) {
    return "Op determinism is on, and stock does not promise the same bits for "
           "every number of threads.";
  }
  if (WorkspaceLimit() != kNoWorkspaceLimit) {
    return "There is a limit for workspace, and stock does not tell what it "
           "needs.";
  }
  return StockRefuse(problem);
}

Choice Choose(const std::string& name, const Problem& problem,
              const Terms& terms) {
  const std::vector<const Algorithm*>& candidates = Named(name);
  if (!IsAuto(name) && candidates.size() == 1) {  // nothing to compare
    const bool takes = WhyNot(*candidates[0], name, problem, terms) == nullptr;
    return {takes ? candidates[0] : nullptr, false, false};
  }
  const bool with_stock = IsAuto(name) && terms.with_stock &&
                          WhyNotStock(problem, terms) == nullptr;
  if (IsAuto(name) && !terms.deterministic) {
    const std::string measured = FindChoice(problem, terms.threads);
    if (measured == kStockName && with_stock) return {nullptr, true, true};
    for (const Algorithm* algorithm : candidates) {
      if (measured == algorithm->name &&
          WhyNot(*algorithm, name, problem, terms) == nullptr) {
        return {algorithm, false, true};
      }
    }
  }
  const Corrections corrections(problem, terms.isa);
  Choice best;
  double best_seconds = 0;
  for (const Algorithm* algorithm : candidates) {
    if (WhyNot(*algorithm, name, problem, terms) != nullptr) continue;
    const double seconds = algorithm->cost(problem, ThisCpu(), terms.isa) *
                           corrections.Of(algorithm->name);
    if (best.algorithm == nullptr || seconds < best_seconds) {
      best.algorithm = algorithm;
      best_seconds = seconds;
    }
  }
  if (with_stock &&
      (best.algorithm == nullptr ||
       StockCost(problem, ThisCpu()) * corrections.Of(kStockName) <
           best_seconds)) {
    return {nullptr, true, false};
  }
  return best;
}

const Algorithm* Resolve(const std::string& name, const Problem& problem,
                         const Terms& terms, std::string* error) {
  Terms own = terms;
  own.with_stock = false;
  const std::vector<const Algorithm*>& candidates = Named(name);
  if (candidates.empty()) {
    *error = "algorithm must be one of \"auto\", \"auto:strict\"";
    for (const Algorithm* known : Algorithms()) {
      *error += std::string(", \"") + known->name + "\"";
    }
    *error +=
        ", or the part of one before a colon. Received: algorithm=" + name;
    return nullptr;
  }
  const Algorithm* chosen = Choose(name, problem, own).algorithm;
  if (chosen == nullptr) {
    *error = std::string(WhyNot(*candidates[0], name, problem, own)) +
             " Received: algorithm=" + name;
  }
  return chosen;
}

}  // namespace kconv
