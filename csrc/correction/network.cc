#include "correction/network.h"

#include <algorithm>

namespace kconv::correction {
namespace {

std::vector<float> Positive(std::vector<float> values) {
  for (float& value : values) value = std::max(value, 0.0f);
  return values;
}

}  // namespace

std::vector<float> Layer::operator()(const std::vector<float>& values) const {
  std::vector<float> sums;
  sums.reserve(units);
  for (size_t unit = 0; unit < units; ++unit) {
    const float* row = weights + unit * (inputs + 1);
    float sum = row[inputs];
    for (size_t i = 0; i < inputs; ++i) sum += row[i] * values[i];
    sums.push_back(sum);
  }
  return sums;
}

std::vector<float> Network::operator()(std::vector<float> features) const {
  for (size_t i = 0; i < features.size(); ++i) {
    if (features[i] < ranges[i][0]) return {};
    features[i] = std::min(features[i], ranges[i][1]);
  }
  return last(Positive(second(Positive(first(features)))));
}

}  // namespace kconv::correction
