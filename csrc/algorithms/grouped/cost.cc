// What a pass costs: sums, copies, calls. Measured on Zen 3.

#include <algorithm>

#include "algorithms/grouped/plan.h"
#include "conv.h"
#include "cpu.h"

namespace kconv::grouped {
namespace {

// Multiply-adds that take as long as an element staged or stored.
constexpr double kMacsPerElement = 12;
// ... and more where it is transposed, widened or placed one by one.
constexpr double kMacsPerScattered = 16;
constexpr double kMacsPerWeight = 30;  // packed, or a partial sum added
// A call for one row of a unit and one for a kernel row of a chunk.
constexpr double kMacsPerCall = 2000;

// The part of the peak that the sums reach; some cores exceed the frequency
// that it is reckoned by.
double Efficiency(const Plan& p, Pass pass, int64_t lanes) {
  const bool dense = p.axes[2].Class(0).stride == 1;
  const bool is_filter = pass == Pass::kFilterGradient;
  if (p.slot > 0) return (dense ? 0.85 : 0.7);
  if (p.y_width > lanes) return (is_filter ? 0.9 : 1.0);
  return (dense && !is_filter ? 0.9 : 0.75);
}

}  // namespace

double WorkOf(const Problem& problem, const Cpu& cpu, Isa isa) {
  const ConvShape& s = problem.shape;
  const int64_t lanes = problem.dtype == DType::kFloat64
                            ? KernelFor<double>(isa).lanes
                            : KernelFor<float>(isa).lanes;
  const Plan p(problem, lanes);
  if (p.Chunks() == 0) return 0;
  auto product = [](auto... factors) {
    return (static_cast<double>(factors) * ...);
  };
  const int64_t units = p.units.total;
  const bool is_filter = problem.pass == Pass::kFilterGradient;

  // Tiles do not quite fit the columns.
  const double columns = static_cast<double>(p.columns);
  const double sums = product(s.batch, s.OutputPixels(), s.KernelTaps(), p.in,
                              units, p.y_width) *
                      (1 + 1 / columns) / Efficiency(p, problem.pass, lanes);

  const Chunk chunk = p.At(0);
  const Reach depth = p.axes[0].At(p.axes[0].written() / 2);
  const double staged =
      product(p.Chunks(), depth.taps, p.Places(chunk.row, chunk.rows),
              p.Places(chunk.column, chunk.columns), units, p.x_width);
  const double written =
      product(s.batch, p.axes[0].written(), p.axes[1].written(),
              p.axes[2].written(), units, p.y_width);
  const bool whole =
      s.layout == Layout::kChannelsLast && SizeOf(problem.dtype) >= 4;
  const bool read_whole =
      whole && (p.slot == 0 ? p.in % lanes == 0 : p.in == p.slot);
  const bool written_whole =
      whole && p.out == (p.slot == 0 ? p.y_width : p.slot);
  const double copies =
      staged * (kMacsPerElement + (read_whole ? 0 : kMacsPerScattered)) +
      written * (kMacsPerElement + (written_whole ? 0 : kMacsPerScattered));

  const double weights = product(s.KernelTaps(), p.in, units, p.y_width);
  const double calls =
      product(p.Chunks(), units,
              is_filter ? s.kernel[0] * s.kernel[1] + p.rows
                        : p.rows * CeilDivide(p.y_width, 2 * lanes));
  // Of sums wider vectors do less than twice as many (Emerald Rapids).
  return sums / cpu.Share(isa, 1, 0.7) +
         cpu.Widening(isa) *
             (copies + kMacsPerWeight * weights + kMacsPerCall * calls);
}

}  // namespace kconv::grouped
