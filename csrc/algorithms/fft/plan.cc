#include "algorithms/fft/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "algorithms/fft/transforms.h"
#include "half.h"

namespace kconv::fft {
namespace {

// Tasks that should be enough for the cores of a large machine.
constexpr int64_t kWantedTasks = 32;

// Work beside the products, in multiply-adds of the same duration for each
// point and lane. Measured on Zen 3. A transform takes time in proportion to
// the logarithm; spectra of tiles are written to planes that lie far apart, and
// those of a filter too, whose taps besides are read from far apart.
constexpr double kMacsPerLevel = 2;
constexpr double kMacsPerTilePoint = 16;
constexpr double kMacsPerFilterPoint = 42;
constexpr double kMacsPerPair = 4;

// A transform with so many rows that are not zero, or are wanted, two at a
// time.
double TransformMacs(const Tiling& tiling, int64_t rows) {
  const double n[2] = {static_cast<double>(tiling.axes[0].points()),
                       static_cast<double>(tiling.axes[1].points())};
  return kMacsPerLevel * n[1] *
         (n[0] * std::log2(n[0]) +
          static_cast<double>(RoundUp(rows, 2)) * std::log2(n[1]));
}

// A product of few rows, columns or channels spends its time on loads.
constexpr double kProductOverhead = 1.5;

int64_t LanesOf(DType dtype, Isa isa) {
  return dtype == DType::kFloat64 ? TransformsFor<double>(isa).lanes
                                  : TransformsFor<float>(isa).lanes;
}

// The first length that makes a single tile of an axis; longer ones are of no
// use.
int LastSize(AxisTiling axis) {
  for (int i = 0; i < kSizeCount; ++i) {
    if (axis.Take(i) && axis.Count() <= 1) return i;
  }
  return kSizeCount - 1;
}

}  // namespace

Plan::Plan(const Problem& problem, Isa isa)
    : tiling(problem.shape, problem.pass),
      sides(problem),
      groups(problem.shape.groups),
      lanes(LanesOf(problem.dtype, isa)),
      sum_bytes_(problem.dtype == DType::kFloat64 ? 8 : 4),
      is_filter_(problem.pass == Pass::kFilterGradient) {
  Cut(problem);
}

void Plan::Cut(const Problem& problem) {
  // Fewer transforms of fewer empty lanes decide.
  const int64_t within = groups * (CeilDivide(sides.sources, lanes) +
                                   CeilDivide(sides.results, lanes));
  const int64_t across =
      CeilDivide(groups, lanes) * (sides.sources + sides.results);
  Plan best = *this;
  best.macs = std::numeric_limits<double>::infinity();
  const int last[2] = {LastSize(tiling.axes[0]), LastSize(tiling.axes[1])};
  for (int i = 0; i <= last[0]; ++i) {
    if (!tiling.axes[0].Take(i)) continue;
    for (int j = 1; j <= std::max(last[1], 1); ++j) {
      if (!tiling.axes[1].Take(j)) continue;
      tiles = problem.shape.batch * tiling.Count();
      planes = tiling.Planes();
      const int64_t bytes = Spectrum() * sum_bytes_;
      across_groups = groups > 1 && across < within &&
                      sides.sources * sides.results * bytes <= 2 * kRoom &&
                      SourcesAtATime() * bytes <= kRoom / 4;
      if (across_groups) {
        CutAcross();
      } else {
        CutWithin();
      }
      if (macs < best.macs) best = *this;
    }
  }
  *this = best;
}

double Plan::WithinMacs(const Split& b, const Split& k, const Split& c) const {
  const AxisTiling& rows = tiling.axes[0];
  const double points =
      static_cast<double>(rows.points() * tiling.axes[1].points());
  const double tiles_of = static_cast<double>(tiles);
  const double sources = static_cast<double>(sides.sources);
  const double source_vectors =
      static_cast<double>(CeilDivide(sides.sources, lanes));
  const double result_vectors =
      static_cast<double>(CeilDivide(sides.results, lanes));
  // What is not kept is transformed again.
  const double v_times =
      b.count * k.count > 1 ? static_cast<double>(c.count) : 1.0;
  const double u_times = is_filter_
                             ? b.count > 1 ? static_cast<double>(k.count) : 1.0
                         : k.count > 1 ? static_cast<double>(b.count)
                                       : 1.0;
  const double of_source =
      TransformMacs(tiling, rows.reads()) + kMacsPerTilePoint * points;
  const double of_result =
      TransformMacs(tiling, rows.outputs()) + kMacsPerTilePoint * points;
  const double of_filter =
      TransformMacs(tiling, rows.taps()) + kMacsPerFilterPoint * points;
  const double transforms =
      v_times * tiles_of * source_vectors * of_source +
      (is_filter_ ? u_times : 1.0) * tiles_of * result_vectors * of_result +
      (is_filter_ ? 1.0 : u_times) * sources * result_vectors * of_filter;
  const double vector = static_cast<double>(lanes);
  const double products =
      4 * static_cast<double>(planes) * tiles_of * sources * result_vectors *
      (1 + kProductOverhead * (4.0 / static_cast<double>(k.size) +
                               2.0 / static_cast<double>(b.size)));
  return static_cast<double>(groups) * vector * (transforms + products);
}

void Plan::CutWithin() {
  const auto room = [&](int64_t bytes) {
    return bytes / (sum_bytes_ * planes);
  };
  double least = std::numeric_limits<double>::infinity();
  for (int64_t parts = 1;; parts *= 2) {
    const Split k(sides.sources, parts, 1);
    // Those of the results that leave room for the spectra of the filter, in
    // the filter gradient for their sums.
    int64_t most = room(kFilterRoom) / (2 * k.size) / lanes * lanes;
    most = std::clamp(most, lanes, RoundUp(sides.results, lanes));
    const Split c(sides.results, CeilDivide(sides.results, most), lanes);
    const int64_t fit =
        std::min(room(kTileRoom) / (3 * k.size),
                 room(kTileRoom) / (2 * RoundUp(c.size, lanes)));
    const Split b(tiles, CeilDivide(tiles, std::max<int64_t>(1, fit)), 1);
    const double estimate = WithinMacs(b, k, c);
    const bool fits = room(kFilterRoom) >= 2 * k.size * lanes && fit > 0;
    if ((fits || k.size <= lanes) && estimate < least) {
      least = estimate;
      blocks = b;
      chunks = k;
      columns = c;
    }
    if (k.size <= lanes) break;
  }
  macs = least;
}

void Plan::CutAcross() {
  const int64_t all = CeilDivide(groups, lanes);
  const int64_t pairs = sides.sources * sides.results;
  const int64_t bytes = pairs * Spectrum() * sum_bytes_;
  const int64_t fit = std::max<int64_t>(1, kRoom / bytes);
  vectors = Split(all, CeilDivide(all, fit), 1);
  slices = 1;
  if (is_filter_) {
    slices = std::min(CeilDivide(kWantedTasks, vectors.size),
                      kRoom / (bytes * vectors.size));
    slices = std::clamp<int64_t>(slices, 1, std::max<int64_t>(tiles, 1));
  }
  const AxisTiling& rows = tiling.axes[0];
  const double tiles_of = static_cast<double>(tiles);
  macs = static_cast<double>(lanes * all) *
         (static_cast<double>(pairs) * TransformMacs(tiling, rows.taps()) +
          tiles_of * (static_cast<double>(sides.sources) *
                          TransformMacs(tiling, rows.reads()) +
                      static_cast<double>(sides.results) *
                          TransformMacs(tiling, rows.outputs()) +
                      static_cast<double>(pairs * planes) * 2 * kMacsPerPair));
}

}  // namespace kconv::fft
