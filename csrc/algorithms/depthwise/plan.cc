#include "algorithms/depthwise/plan.h"

#include "algorithms/depthwise/depthwise.h"

namespace kconv::depthwise {
namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line

// A chunk's weights stay in the first-level cache, and the rows that a row of
// taps reads in the second.
constexpr int64_t kWeightBytes = 16 << 10;
constexpr int64_t kRowBytes = 128 << 10;

// Of the filter gradient: what a box reads of both tensors stays in the second
// level or, of one vector of channels, the rows that a row of taps meets in the
// first.
constexpr int64_t kBoxBytes = 160 << 10;
constexpr int64_t kVectorBytes = 28 << 10;
// Places summed into one number, before that goes into a larger sum.
constexpr int64_t kBoxPlaces = 1024;

constexpr int64_t kPanelBytes = 192 << 10;
constexpr int64_t kMostPanelBytes = 1 << 20;  // where one row takes more

// With as many taps what is read is read often, and pixels that lie a power of
// two apart would fall into few sets of the cache: a panel pays.
constexpr int64_t kManyTaps = 50;

// Enough boxes and slices for the cores of a large machine.
constexpr int64_t kWantedBoxes = 64;
constexpr int64_t kWantedSlices = 32;
constexpr int64_t kMostPartials = int64_t{1} << 23;  // elements of all slices

constexpr int64_t kMostColumns = 1024;
constexpr int64_t kMostPanelColumns = 256;

int64_t Bytes(const Problem& problem) {
  return problem.dtype == DType::kFloat64 ? 8 : 4;
}

int64_t LanesOf(const Problem& problem, Isa isa) {
  const Kernels& kernels = KernelsFor(isa);
  return problem.dtype == DType::kFloat64 ? kernels.float64.lanes
                                          : kernels.float32.lanes;
}

// Whether channels of a pixel are the lanes of a vector.
bool LiesInLanes(const Problem& problem) {
  return problem.shape.layout == Layout::kChannelsLast &&
         (problem.dtype == DType::kFloat32 || problem.dtype == DType::kFloat64);
}

bool IsReadOften(const Problem& problem) {
  return problem.shape.KernelTaps() >= kManyTaps;
}

}  // namespace

Plan::Plan(const Problem& problem, Isa isa)
    : depth(problem.shape, problem.pass, 0),
      rows(Axis(problem.shape, problem.pass, 1), 1),
      columns(Axis(problem.shape, problem.pass, 2), kMostColumns),
      lanes(LanesOf(problem, isa)),
      repeat(problem.shape.GroupOutChannels()),
      panels_of_input(
          !LiesInLanes(problem) || repeat > 1 ||
          (IsReadOften(problem) && problem.pass != Pass::kInputGradient)),
      panels_of_output(
          !LiesInLanes(problem) ||
          (IsReadOften(problem) && problem.pass != Pass::kForward)) {
  const ConvShape& s = problem.shape;
  const bool transposed = problem.pass == Pass::kInputGradient;
  const int64_t line = std::max(lanes, kLine / Bytes(problem));
  if (HasPanels(problem)) {
    // Wide strides skip much of what a panel holds.
    int64_t size = std::min(columns.size(), kMostPanelColumns);
    const double row = static_cast<double>(s.kernel[0]) *
                       static_cast<double>(rows.axis().MostReads(1)) *
                       static_cast<double>(line * Bytes(problem));
    while (size > 1 &&
           row * static_cast<double>(columns.axis().MostReads(size)) >
               kMostPanelBytes) {
      size /= 2;
    }
    columns = Bands(columns.axis(), size);
  }
  const int64_t most = std::max(ChunkLanes(problem) / line * line, line);
  chunks = transposed && repeat > 1
               ? Chunks::OfChannels(s.out_channels, repeat, most, lanes)
               : Chunks(s.out_channels, most, lanes);
  rows = Bands(rows.axis(), BoxRows(problem));
  column_classes = problem.pass == Pass::kFilterGradient
                       ? std::max<int64_t>(1, columns.axis().classes())
                       : 1;
  boxes = s.batch * depth.written() * rows.axis().classes() * rows.blocks() *
          columns.blocks() * column_classes;
  SizePanels(problem);
  if (problem.pass == Pass::kFilterGradient) {
    const int64_t wanted =
        std::min(CeilDivide(kWantedSlices, chunks.Count()),
                 kMostPartials / std::max<int64_t>(1, s.FilterElements()));
    slices = Split(boxes, std::min(boxes, wanted), 1);
  }
}

int64_t Plan::ChunkLanes(const Problem& problem) const {
  if (panels_of_input || panels_of_output) return 0;
  // What strides and pads skip may be more than can be counted.
  const double row = static_cast<double>(problem.shape.kernel[0]) *
                     static_cast<double>(rows.axis().MostReads(1)) *
                     static_cast<double>(columns.MostReads()) *
                     static_cast<double>(Bytes(problem));
  return std::min(kWeightBytes / (problem.shape.KernelTaps() * Bytes(problem)),
                  static_cast<int64_t>(kRowBytes / std::max(row, 1.0)));
}

// Whether any chunk goes by way of panels.
bool Plan::HasPanels(const Problem& problem) const {
  return panels_of_input || panels_of_output ||
         problem.shape.out_channels % lanes != 0;
}

// Rows of a box: as many as make enough boxes, and fit.
int64_t Plan::BoxRows(const Problem& problem) const {
  const ConvShape& s = problem.shape;
  const int64_t bytes = Bytes(problem);
  const bool sums = problem.pass == Pass::kFilterGradient;
  int64_t wanted;
  if (sums) {
    wanted = kBoxPlaces / columns.size();
    if (panels_of_input || panels_of_output) {
      wanted =
          std::min(wanted, kVectorBytes / (2 * columns.size() * lanes * bytes));
    }
  } else {
    const int64_t all = s.batch * depth.written() * rows.axis().written() *
                        columns.blocks() * chunks.Count();
    wanted = std::max<int64_t>(2, all / kWantedBoxes);
  }
  const int64_t longest = CeilDivide(
      rows.axis().written(), std::max<int64_t>(1, rows.axis().classes()));
  wanted = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, longest));
  if (!sums && !HasPanels(problem)) return wanted;

  // In place no more is read than there is, however wide the kernel.
  const bool in_panels = HasPanels(problem);
  const int64_t read_lanes = in_panels && !panels_of_input && !panels_of_output
                                 ? lanes
                                 : chunks.Lanes();
  const double most =
      static_cast<double>(sums ? kBoxBytes : kPanelBytes) /
      static_cast<double>(bytes * (sums ? chunks.Lanes() : read_lanes));
  auto fits = [&](int64_t size) {
    int64_t read_rows = rows.axis().MostReads(size);
    int64_t read_columns = columns.MostReads();
    if (!in_panels) {
      read_rows = std::min(read_rows, rows.axis().read());
      read_columns = std::min(read_columns, columns.axis().read());
    }
    return static_cast<double>(s.kernel[0]) * static_cast<double>(read_rows) *
               static_cast<double>(read_columns) <=
           most;
  };
  int64_t low = 1, high = wanted;  // the largest that fits, or 1
  while (low < high) {
    const int64_t middle = high - (high - low) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

void Plan::SizePanels(const Problem& problem) {
  const bool transposed = problem.pass == Pass::kInputGradient;
  // Of any chunk, or only of the one that fills no vector.
  const int64_t of_any = problem.shape.out_channels % lanes == 0 ? 0 : lanes;
  const int64_t input = panels_of_input ? chunks.Lanes() : of_any;
  const int64_t output =
      panels_of_output || (transposed && repeat > 1) ? chunks.Lanes() : of_any;
  const int64_t reads =
      HasPanels(problem)
          ? problem.shape.kernel[0] * rows.MostReads() * columns.MostReads()
          : 0;
  const bool sums = problem.pass == Pass::kFilterGradient;
  const int64_t writes = (sums ? rows.size() : 1) * columns.size();
  input_panel = input * (transposed ? writes : reads);
  output_panel = output * (transposed ? reads : writes);
}

}  // namespace kconv::depthwise
