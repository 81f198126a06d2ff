#include "correction/correction.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "correction/features.h"
#include "correction/network.h"
#include "stock.h"

namespace kconv {
namespace {

using correction::MakeNetwork;
using correction::Network;

namespace avx512_onednn {
#include "correction/avx512_onednn.inc"
}
namespace avx2_eigen {
#include "correction/avx2_eigen.inc"
}

constexpr const Network* kNetworks[] = {&avx512_onednn::kNetwork,
                                        &avx2_eigen::kNetwork};

// Whatever it says of a problem that is new to it must not ruin the choice.
constexpr float kMostLogarithm = 1.0f;

bool IsEmpty(const ConvShape& s) {
  return std::min(
             {s.InputElements(), s.FilterElements(), s.OutputElements()}) == 0;
}

// Kinds that are never drawn: groups of one or three dimensions, or dilated.
bool IsKnownKind(const ConvShape& s) {
  if (s.groups == 1) return true;
  return s.spatial_dims == 2 &&
         *std::max_element(s.dilation, s.dilation + 3) == 1;
}

std::vector<double> FactorsOf(const Network& network, const Problem& problem) {
  if (IsEmpty(problem.shape) || !IsKnownKind(problem.shape)) return {};
  std::vector<float> features = correction::FeaturesOf(problem);
  // A table of other features is of no use: it must be trained anew.
  if (features.size() != network.Features()) return {};
  std::vector<double> factors;
  for (const float value : network(std::move(features))) {
    factors.push_back(
        std::exp(std::clamp(value, -kMostLogarithm, kMostLogarithm)));
  }
  return factors;
}

// The one of this machine, or null.
const Network* ThisNetwork(Isa isa) {
  if (isa == Isa::kAvx512 && StockIsOneDnnOfAvx512()) {
    return &avx512_onednn::kNetwork;
  }
  // Most formulas of AVX2 are of Zen 3, and held there without it.
  if (isa == Isa::kAvx2 && StockIsEigenOfAvx2() && ThisCpu().is_intel) {
    return &avx2_eigen::kNetwork;
  }
  return nullptr;
}

}  // namespace

namespace correction {

std::vector<std::string> Networks() {
  std::vector<std::string> names;
  for (const Network* network : kNetworks) names.push_back(network->name);
  return names;
}

const char* ThisNetwork(Isa isa) {
  const Network* network = kconv::ThisNetwork(isa);
  return network == nullptr ? nullptr : network->name;
}

std::vector<double> FactorsOf(const std::string& name, const Problem& problem) {
  for (const Network* network : kNetworks) {
    if (network->name == name) return kconv::FactorsOf(*network, problem);
  }
  return {};
}

}  // namespace correction

Corrections::Corrections(const Problem& problem, Isa isa)
    : network_(ThisNetwork(isa)) {
  if (network_ != nullptr) factors_ = FactorsOf(*network_, problem);
}

double Corrections::Of(const std::string& candidate) const {
  for (size_t i = 0; i < factors_.size(); ++i) {
    if (network_->candidates[i] == candidate) return factors_[i];
  }
  return 1.0;
}

}  // namespace kconv
