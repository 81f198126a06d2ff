#include "algorithms/depthwise/plan.h"

#include "algorithms/depthwise/depthwise.h"

namespace kconv::depthwise {
namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line

// A chunk's weights stay in the first-level cache, and the rows that a row of
// taps reads in the second.
constexpr int64_t kWeightBytes = 16 << 10;
constexpr int64_t kRowBytes = 128 << 10;
// What a box of the filter gradient reads, and a panel holds, stays in the
// second level.
constexpr int64_t kBoxBytes = 160 << 10;
// Places summed into one number, before that goes into a larger sum.
constexpr int64_t kBoxPlaces = 1024;

// Enough boxes and slices for the cores of a large machine.
constexpr int64_t kWantedBoxes = 64;
constexpr int64_t kWantedSlices = 32;

constexpr int64_t kMostColumns = 1024;
constexpr int64_t kMostGatheredColumns = 256;
constexpr int64_t kMostPanelBytes = 1 << 20;  // if one column is no more

int64_t Bytes(const Problem& problem) {
  return problem.dtype == DType::kFloat64 ? 8 : 4;
}

int64_t LanesOf(const Problem& problem, Isa isa) {
  const Kernels& kernels = KernelsFor(isa);
  return problem.dtype == DType::kFloat64 ? kernels.float64.lanes
                                          : kernels.float32.lanes;
}

bool IsGathered(const Problem& problem) {
  return problem.shape.layout == Layout::kChannelsFirst ||
         problem.dtype == DType::kBFloat16 || problem.dtype == DType::kFloat16;
}

}  // namespace

Plan::Plan(const Problem& problem, Isa isa)
    : depth(problem.shape, problem.pass, 0),
      rows(Axis(problem.shape, problem.pass, 1), 1),
      columns(Axis(problem.shape, problem.pass, 2), kMostColumns),
      lanes(LanesOf(problem, isa)),
      repeat(problem.shape.GroupOutChannels()),
      gathers_input(IsGathered(problem) || repeat > 1),
      gathers_output(IsGathered(problem)) {
  const ConvShape& s = problem.shape;
  const int64_t bytes = Bytes(problem);
  const int64_t line = std::max(lanes, kLine / bytes);
  const int64_t filters = s.out_channels;
  const bool transposed = problem.pass == Pass::kInputGradient;
  const bool sums = problem.pass == Pass::kFilterGradient;
  const bool gathers = gathers_input || gathers_output || filters % lanes != 0;
  const int64_t taps = s.KernelTaps();
  if (gathers) {
    // Wide strides skip much of what a panel holds.
    int64_t most = kMostGatheredColumns;
    const int64_t reads = s.kernel[0] * rows.axis().MostReads(1);
    while (most > 1 && reads * columns.axis().MostReads(most) * line * bytes >
                           kMostPanelBytes) {
      most /= 2;
    }
    columns = Bands(columns.axis(), most);
  }

  int64_t most = line;
  if (!gathers_input && !gathers_output) {
    const int64_t row =
        s.kernel[0] * rows.axis().MostReads(1) * columns.MostReads() * bytes;
    most = std::min(kWeightBytes / (taps * bytes),
                    kRowBytes / std::max<int64_t>(row, 1));
    most = std::max(most / line * line, line);
  }
  chunks = transposed && repeat > 1
               ? Chunks::OfChannels(filters, repeat, most, lanes)
               : Chunks(filters, most, lanes);

  // Lanes of a panel: of any chunk, or only of the one that fills no vector.
  const bool aligned = filters % lanes == 0;
  const int64_t input_lanes = gathers_input ? chunks.Lanes()
                              : aligned     ? 0
                                            : lanes;
  const int64_t output_lanes = gathers_output || (transposed && repeat > 1)
                                   ? chunks.Lanes()
                               : aligned ? 0
                                         : lanes;
  const int64_t read_lanes = transposed ? output_lanes : input_lanes;
  const int64_t written_lanes = transposed ? input_lanes : output_lanes;
  const int64_t columns_read = columns.MostReads();
  const int64_t length = CeilDivide(
      rows.axis().written(), std::max<int64_t>(1, rows.axis().classes()));

  int64_t size = 1;
  auto box_bytes = [&](int64_t some) {
    const int64_t read =
        s.kernel[0] * rows.axis().MostReads(some) * columns_read;
    if (sums) {
      return (read + some * columns.size()) * chunks.Lanes() * bytes;
    }
    return read * read_lanes * bytes;
  };
  const int64_t all_rows = s.batch * depth.written() * rows.axis().written() *
                           columns.blocks() * (sums ? 1 : chunks.Count());
  const int64_t wanted = sums
                             ? std::max<int64_t>(1, kBoxPlaces / columns.size())
                             : std::max<int64_t>(2, all_rows / kWantedBoxes);
  while (size < std::min(wanted, length) && box_bytes(size + 1) <= kBoxBytes) {
    ++size;
  }
  rows = Bands(rows.axis(), size);
  boxes = s.batch * depth.written() * rows.axis().classes() * rows.blocks() *
          columns.blocks();

  const int64_t read_places = s.kernel[0] * rows.MostReads() * columns_read;
  const int64_t written_places = (sums ? rows.size() : 1) * columns.size();
  const int64_t read_panel = RoundUp(read_places * read_lanes, line);
  const int64_t written_panel = RoundUp(written_places * written_lanes, line);
  input_panel = transposed ? written_panel : read_panel;
  output_panel = transposed ? read_panel : written_panel;
  if (sums) {
    slices = Split(
        boxes, std::min(boxes, CeilDivide(kWantedSlices, chunks.Count())), 1);
  }
}

}  // namespace kconv::depthwise
