#include "correction/correction.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "correction/features.h"
#include "stock.h"

namespace kconv {
namespace {

// Its candidates; the ranges of the features that it has seen; and its layers,
// each a row of weights for every unit with the bias at the end.
#include "correction/avx512_onednn.inc"

static_assert(std::size(kFirstLayer[0]) == std::size(kRanges) + 1);
static_assert(std::size(kSecondLayer[0]) == std::size(kFirstLayer) + 1);
static_assert(std::size(kLastLayer[0]) == std::size(kSecondLayer) + 1);
static_assert(std::size(kCandidates) == std::size(kLastLayer));

// Whatever it says of a problem that is new to it must not ruin the choice.
constexpr float kMostLogarithm = 1.0f;

template <size_t kUnits, size_t kInputs>
std::vector<float> Layer(const float (&weights)[kUnits][kInputs],
                         const std::vector<float>& inputs) {
  std::vector<float> sums;
  sums.reserve(kUnits);
  for (const float (&row)[kInputs] : weights) {
    float sum = row[kInputs - 1];
    for (size_t i = 0; i + 1 < kInputs; ++i) sum += row[i] * inputs[i];
    sums.push_back(sum);
  }
  return sums;
}

std::vector<float> Positive(std::vector<float> values) {
  for (float& value : values) value = std::max(value, 0.0f);
  return values;
}

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

}  // namespace

namespace correction {

std::vector<double> FactorsOf(const Problem& problem) {
  if (IsEmpty(problem.shape) || !IsKnownKind(problem.shape)) return {};
  std::vector<float> values = FeaturesOf(problem);
  // A table of other features is of no use: it must be trained anew.
  if (values.size() != std::size(kRanges)) return {};
  for (size_t i = 0; i < values.size(); ++i) {
    // What is larger than all that was seen behaves like the largest. What is
    // smaller, a filter or two, does not behave like the smallest.
    if (values[i] < kRanges[i][0]) return {};
    values[i] = std::min(values[i], kRanges[i][1]);
  }
  values = Positive(Layer(kFirstLayer, values));
  values = Positive(Layer(kSecondLayer, values));
  std::vector<double> factors;
  for (const float value : Layer(kLastLayer, values)) {
    factors.push_back(
        std::exp(std::clamp(value, -kMostLogarithm, kMostLogarithm)));
  }
  return factors;
}

}  // namespace correction

Corrections::Corrections(const Problem& problem, Isa isa) {
  if (isa == Isa::kAvx512 && StockIsOneDnnOfAvx512()) {
    factors_ = correction::FactorsOf(problem);
  }
}

double Corrections::Of(const std::string& candidate) const {
  const auto* found =
      std::find(std::begin(kCandidates), std::end(kCandidates), candidate);
  const auto at = static_cast<size_t>(found - std::begin(kCandidates));
  return at < factors_.size() ? factors_[at] : 1.0;
}

}  // namespace kconv
