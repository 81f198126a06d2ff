// What measurements say of the estimates. The formulas of the algorithms and of
// stock's kernels (Algorithm::cost, StockCost) hold within about a third, and
// the two best candidates are often nearer to each other. A small network,
// trained by fit.py on problems that `kconv bench auto` measured, tells by what
// each estimate is to be multiplied, with AVX-512 beside oneDNN: of two cores
// of Emerald Rapids, taken for all processors that do not halve AVX-512. Where
// stock is another the estimates stay as they are.

#ifndef KCONV_CORRECTION_CORRECTION_H_
#define KCONV_CORRECTION_CORRECTION_H_

#include <string>
#include <vector>

#include "conv.h"

namespace kconv {

namespace correction {

// What the network says of a problem, whatever the machine: a factor for each
// of its candidates, at most e and at least 1 / e. None of a problem that is
// unlike all that it was trained on.
std::vector<double> FactorsOf(const Problem& problem);

}  // namespace correction

class Corrections {
 public:
  // Of a problem for this machine.
  Corrections(const Problem& problem, Isa isa);

  // The factor for the estimate of a candidate: the name of an algorithm, or
  // kStockName.
  double Of(const std::string& candidate) const;

 private:
  std::vector<double> factors_;  // as the network's candidates, or none
};

}  // namespace kconv

#endif  // KCONV_CORRECTION_CORRECTION_H_
