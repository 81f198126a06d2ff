// A network with two hidden layers, of tables that fit.py wrote.

#ifndef KCONV_CORRECTION_NETWORK_H_
#define KCONV_CORRECTION_NETWORK_H_

#include <cstddef>
#include <vector>

namespace kconv::correction {

// A row of weights for each unit, with its bias at the end.
struct Layer {
  const float* weights;
  size_t units, inputs;

  // Its sums.
  std::vector<float> operator()(const std::vector<float>& values) const;
};

struct Network {
  const char* name;               // the configuration that it was measured on
  const char* const* candidates;  // as many as the last layer's units
  // Of each feature the least and the most that it has seen.
  const float (*ranges)[2];
  Layer first, second, last;

  size_t Features() const { return first.inputs; }
  size_t Candidates() const { return last.units; }

  // For features, as many as it knows: for each candidate the logarithm of a
  // factor. Empty if one of them is below all that it has seen; what is larger
  // behaves like the largest, but a filter or two not like the smallest.
  std::vector<float> operator()(std::vector<float> features) const;
};

// The tables must fit together.
template <size_t kFeatures, size_t kUnits, size_t kCandidates>
constexpr Network MakeNetwork(const char* name,
                              const char* const (&candidates)[kCandidates],
                              const float (&ranges)[kFeatures][2],
                              const float (&first)[kUnits][kFeatures + 1],
                              const float (&second)[kUnits][kUnits + 1],
                              const float (&last)[kCandidates][kUnits + 1]) {
  return {name,
          candidates,
          ranges,
          {first[0], kUnits, kFeatures},
          {second[0], kUnits, kUnits},
          {last[0], kCandidates, kUnits}};
}

}  // namespace kconv::correction

#endif  // KCONV_CORRECTION_NETWORK_H_
