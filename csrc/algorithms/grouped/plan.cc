#include "algorithms/grouped/plan.h"

#include <algorithm>

namespace kconv::grouped {
namespace {

// Places that are written by a task: the filter gradient sums so many in one
// accumulator before it adds them to the others.
constexpr int64_t kPixels = 512;
constexpr int64_t kMostRows = 16;
constexpr int64_t kMostColumns = 64;
constexpr int64_t kMostColumnsOfFewRows = 256;
// A task takes whole lines of channels, several where there are enough tasks.
constexpr int64_t kBlockBytes = 256;
constexpr int64_t kLineBytes = 64;
constexpr int64_t kWantedTasks = 32;

int64_t SlotOf(int64_t channels, int64_t lanes) {
  if (channels > lanes / 2) return 0;
  int64_t slot = 2;
  while (slot < channels) slot *= 2;
  return slot;
}

}  // namespace

Image::Image(const ConvShape& s, bool is_input) {
  int64_t places = 1;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    size[i] = is_input ? s.input[i] : s.output[i];
    places *= size[i];
  }
  channels = is_input ? s.in_channels : s.out_channels;
  image = channels * places;
  const bool last = s.layout == Layout::kChannelsLast;
  place = last ? channels : 1;
  channel = last ? 1 : places;
}

Plan::Plan(const Problem& problem, int64_t lanes)
    : axes{{problem.shape, problem.pass, 0},
           {problem.shape, problem.pass, 1},
           {problem.shape, problem.pass, 2}},
      read(problem.shape, problem.pass != Pass::kInputGradient),
      written(problem.shape, problem.pass == Pass::kInputGradient),
      batch(problem.shape.batch),
      groups(problem.shape.groups),
      in(read.channels / groups),
      out(written.channels / groups),
      slot(SlotOf(std::max(in, out), lanes)),
      unit_groups(slot == 0 ? 1 : lanes / slot),
      x_width(slot == 0 ? in : lanes),
      y_width(slot == 0 ? RoundUp(out, lanes) : lanes) {
  const ConvShape& s = problem.shape;
  const AxisClass row = axes[1].written() > 0 ? axes[1].Class(0) : AxisClass();
  const AxisClass column =
      axes[2].written() > 0 ? axes[2].Class(0) : AxisClass();
  const Split of_columns(
      column.count,
      CeilDivide(column.count,
                 row.count < 4 ? kMostColumnsOfFewRows : kMostColumns),
      1);
  columns = of_columns.size;
  column_parts = of_columns.count;
  const int64_t most = std::clamp<int64_t>(kPixels / columns, 1, kMostRows);
  const Split of_rows(row.count, CeilDivide(row.count, most), 1);
  rows = of_rows.size;
  row_parts = of_rows.count;
  // The input gradient's classes have different taps; none has more than the
  // kernel.
  auto places = [&s](int dim, int64_t stride, int64_t n) {
    return std::min(stride, s.kernel[dim]) * (n - 1) + s.kernel[dim];
  };
  const int64_t slack = kSlackColumns * std::min(column.stride, s.kernel[2]);
  row_elements =
      RoundUp((places(2, column.stride, columns) + slack) * x_width, 16);
  unit_elements = row_elements * s.kernel[0] * places(1, row.stride, rows);

  const int64_t count = CeilDivide(groups, unit_groups);
  const int64_t unit_bytes =
      unit_groups * std::min(in, out) * SizeOf(problem.dtype);
  int64_t block_bytes = kBlockBytes;
  while (block_bytes > kLineBytes &&
         Chunks() * CeilDivide(count * unit_bytes, block_bytes) <
             kWantedTasks) {
    block_bytes /= 2;
  }
  units =
      Split(count, CeilDivide(count, CeilDivide(block_bytes, unit_bytes)), 1);
}

int64_t Plan::Chunks() const {
  return batch * axes[0].written() * axes[1].classes() * row_parts *
         axes[2].classes() * column_parts;
}

Chunk Plan::At(int64_t i) const {
  auto take = [&i](int64_t count) {
    const int64_t at = i % count;
    i /= count;
    return at;
  };
  Chunk c;
  c.first_column = take(column_parts) * columns;
  c.column = axes[2].Class(take(axes[2].classes()));
  c.first_row = take(row_parts) * rows;
  c.row = axes[1].Class(take(axes[1].classes()));
  c.depth = take(axes[0].written());
  c.image = i;
  // Later classes may have one place less than the first.
  c.rows = std::clamp<int64_t>(c.row.count - c.first_row, 0, rows);
  c.columns = std::clamp<int64_t>(c.column.count - c.first_column, 0, columns);
  return c;
}

RowTaps::RowTaps(const AxisClass& c, int64_t j, int64_t read) {
  const int64_t from = c.from + c.step * c.stride * j;
  first =
      std::clamp<int64_t>(from < 0 ? CeilDivide(-from, c.step) : 0, 0, c.taps);
  end = std::clamp<int64_t>(from < read ? (read - 1 - from) / c.step + 1 : 0,
                            first, c.taps);
}

namespace {

// One row of places. Where taps leave out some, those of each tap in turn.
template <typename Element>
void StageRow(const Plan& plan, const Kernel<Element>& kernel,
              const Chunk& chunk, int64_t begin, int64_t end,
              const Element* row, SumType<Element>* to) {
  const AxisClass& c = chunk.column;
  const bool sparse = c.taps < c.stride;
  const int64_t runs = sparse ? c.taps : 1;
  const int64_t step = sparse ? c.step * c.stride : c.step;
  const int64_t count = sparse ? chunk.columns : plan.Places(c, chunk.columns);
  const int64_t read = plan.axes[2].read();
  for (int64_t u = 0; u < runs; ++u) {
    const int64_t from = c.from + c.step * (c.stride * chunk.first_column + u);
    Strip<Element> strip;
    strip.lanes = plan.Full(plan.in, plan.x_width);
    strip.zeros_before =
        std::clamp<int64_t>(from < 0 ? CeilDivide(-from, step) : 0, 0, count);
    const int64_t last =
        std::clamp<int64_t>(from < read ? (read - 1 - from) / step + 1 : 0,
                            strip.zeros_before, count);
    strip.count = last - strip.zeros_before;
    strip.zeros_after = count - last;
    strip.from = row;
    if (strip.count > 0) {
      strip.from += (from + step * strip.zeros_before) * plan.read.place;
    }
    strip.place = step * plan.read.place;
    strip.channel = plan.read.channel;
    strip.to = to + u * plan.x_width;
    strip.to_place = runs * plan.x_width;
    strip.to_unit = plan.unit_elements;
    StageUnits(plan, kernel, begin, end, strip);
  }
}

}  // namespace

template <typename Element>
void StageChunk(const Plan& plan, const Kernel<Element>& kernel,
                const Chunk& chunk, const Reach& depth, int64_t begin,
                int64_t end, const Element* tensor, SumType<Element>* panel) {
  const AxisClass& c = chunk.row;
  const int64_t rows = plan.Places(c, chunk.rows);
  const int64_t pitch = plan.Pitch(c);
  if (chunk.column.taps == 0) return;
  tensor += begin * plan.unit_groups * plan.in * plan.read.channel;
  for (int64_t u = 0; u < depth.taps; ++u) {
    const int64_t d = depth.from + depth.step * u;
    for (int64_t i = 0; i < rows; ++i, panel += plan.row_elements) {
      const int64_t place =
          c.taps < c.stride ? i / pitch * c.stride + i % pitch : i;
      const int64_t h = c.from + c.step * (c.stride * chunk.first_row + place);
      // No sum reads the others.
      if (h < 0 || h >= plan.axes[1].read()) continue;
      StageRow(plan, kernel, chunk, begin, end,
               tensor + plan.read.Offset(chunk.image, d, h, 0), panel);
    }
  }
}

template void StageChunk<float>(const Plan&, const Kernel<float>&, const Chunk&,
                                const Reach&, int64_t, int64_t, const float*,
                                float*);
template void StageChunk<double>(const Plan&, const Kernel<double>&,
                                 const Chunk&, const Reach&, int64_t, int64_t,
                                 const double*, double*);
template void StageChunk<BFloat16>(const Plan&, const Kernel<BFloat16>&,
                                   const Chunk&, const Reach&, int64_t, int64_t,
                                   const BFloat16*, float*);
template void StageChunk<Float16>(const Plan&, const Kernel<Float16>&,
                                  const Chunk&, const Reach&, int64_t, int64_t,
                                  const Float16*, float*);

}  // namespace kconv::grouped
