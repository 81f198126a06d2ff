// What measurements say of the estimates. The formulas of the algorithms and of
// stock's kernels (Algorithm::cost, StockCost) hold within about a third, and
// the two best candidates are often nearer to each other. Small networks,
// trained by fit.py on problems that `kconv bench auto` measured on two cores
// of Emerald Rapids, tell by what each estimate is to be multiplied. One is of
// AVX-512 beside oneDNN, and taken for all processors that do not halve
// AVX-512; one of AVX2 beside Eigen, and taken for Intel's. Elsewhere the
// estimates stay as they are.

#ifndef KCONV_CORRECTION_CORRECTION_H_
#define KCONV_CORRECTION_CORRECTION_H_

#include <string>
#include <vector>

#include "conv.h"

namespace kconv {

namespace correction {

struct Network;

// By the configuration that they are of: "avx2_eigen".
std::vector<std::string> Networks();

// The one that is in use here for an instruction set, or null.
const char* ThisNetwork(Isa isa);

// What one of them says of a problem, whatever the machine: a factor for each
// of its candidates, at most e and at least 1 / e. None of a problem that is
// unlike all that it was trained on.
std::vector<double> FactorsOf(const std::string& name, const Problem& problem);

}  // namespace correction

class Corrections {
 public:
  // Of a problem for this machine.
  Corrections(const Problem& problem, Isa isa);

  // The factor for the estimate of a candidate: the name of an algorithm, or
  // kStockName.
  double Of(const std::string& candidate) const;

 private:
  const correction::Network* network_;  // of this machine, or null
  std::vector<double> factors_;         // as the network's candidates, or none
};

}  // namespace kconv

#endif  // KCONV_CORRECTION_CORRECTION_H_
