// A tensor of images, as the kernels read and write it: in place, where the
// lanes of a vector lie next to one another, or by way of a panel.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_OPERAND_H_
#define KCONV_ALGORITHMS_DEPTHWISE_OPERAND_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "algorithms/depthwise/depthwise.h"
#include "algorithms/depthwise/plan.h"
#include "conv.h"
#include "half.h"
#include "split.h"

namespace kconv::depthwise {

template <typename Sum>
const Kernel<Sum>& KernelOf(const Kernels& kernels) {
  if constexpr (std::is_same_v<Sum, double>)
    return kernels.float64;
  else
    return kernels.float32;
}

template <typename Element>
const Panels<Element>& PanelsOf(const Kernels& kernels) {
  if constexpr (std::is_same_v<Element, float>)
    return kernels.float32_panels;
  else if constexpr (std::is_same_v<Element, double>)
    return kernels.float64_panels;
  else if constexpr (std::is_same_v<Element, BFloat16>)
    return kernels.bfloat16_panels;
  else
    return kernels.float16_panels;
}

// Places of a tensor along its axes: from, from + step, ..., some of which may
// lie outside.
struct Grid {
  int64_t from[3], step[3], count[3];

  void Set(int dim, int64_t first, int64_t apart, int64_t places) {
    from[dim] = first;
    step[dim] = apart;
    count[dim] = places;
  }
  void SetReads(int dim, const Band& band) {
    const AxisClass& c = band.places;
    const bool none = c.taps == 0 || band.Size() == 0;
    Set(dim, c.from + c.step * c.stride * band.begin, c.step,
        none ? 0 : c.stride * (band.Size() - 1) + c.taps);
  }
  void SetWrites(int dim, const Band& band) {
    Set(dim, band.places.first + band.places.pitch * band.begin,
        band.places.pitch, band.Size());
  }
};

// The tensor, with its layout spelled out as strides in elements.
template <typename Element>
struct Operand {
  using Sum = SumType<Element>;

  Element* data;
  int64_t size[3], stride[3];
  int64_t image, channel;
  int64_t repeat;    // filters of a channel
  bool is_gathered;  // whatever the chunk
  const Panels<Element>& panels;
  int64_t lanes;

  Operand(const ConvShape& s, bool is_input, const Plan& plan,
          const Kernels& kernels, void* data)
      : data(static_cast<Element*>(data)),
        repeat(is_input ? plan.repeat : 1),
        is_gathered(is_input ? plan.panels_of_input : plan.panels_of_output),
        panels(PanelsOf<Element>(kernels)),
        lanes(plan.lanes) {
    const bool last = s.layout == Layout::kChannelsLast;
    const int64_t channels = is_input ? s.in_channels : s.out_channels;
    std::copy_n(is_input ? s.input : s.output, 3, size);
    channel = last ? 1 : size[0] * size[1] * size[2];
    stride[2] = last ? channels : 1;
    stride[1] = stride[2] * size[2];
    stride[0] = stride[1] * size[1];
    image = channels * size[0] * size[1] * size[2];
  }

  bool NeedsPanel(const Chunk& chunk) const {
    return is_gathered || chunk.count % lanes != 0;
  }
};

// The part of an operand that lies on a grid, readable for the kernels.
template <typename Element>
class Source {
 public:
  using Sum = SumType<Element>;

  // Gathers, into `panel`, if it must.
  Source(const Operand<Element>& operand, int64_t image, const Grid& grid,
         const Chunk& chunk, Sum* panel) {
    for (int i = 0; i < 3; ++i) SetRange(operand, grid, i);
    row_.low = low_[2];
    row_.high = std::max(low_[2], high_[2]);
    if (!operand.NeedsPanel(chunk)) {
      if constexpr (std::is_same_v<Element, Sum>) {
        row_.data = operand.data;
        row_.offset = image * operand.image + chunk.first;
        for (int i = 0; i < 3; ++i) {
          unit_[i] = grid.step[i] * operand.stride[i];
          row_.offset += grid.from[i] * operand.stride[i];
        }
        row_.pitch = unit_[2];
        row_.vector = operand.lanes;
        return;
      }
    }
    // [vector][depth][row][column][lane]
    row_.data = panel;
    row_.offset = 0;
    row_.pitch = unit_[2] = operand.lanes;
    unit_[1] = unit_[2] * grid.count[2];
    unit_[0] = unit_[1] * grid.count[1];
    row_.vector = unit_[0] * grid.count[0];
    Columns<const Element> columns;
    columns.pitch = grid.step[2] * operand.stride[2];
    columns.channel = operand.channel;
    columns.count = high_[2] - low_[2];
    columns.repeat = operand.repeat;
    if (columns.count <= 0) return;
    for (int64_t z = low_[0]; z < high_[0]; ++z) {
      for (int64_t y = low_[1]; y < high_[1]; ++y) {
        const Element* from =
            operand.data + image * operand.image +
            (grid.from[0] + z * grid.step[0]) * operand.stride[0] +
            (grid.from[1] + y * grid.step[1]) * operand.stride[1] +
            (grid.from[2] + low_[2] * grid.step[2]) * operand.stride[2];
        Sum* to = panel + z * unit_[0] + y * unit_[1] + low_[2] * unit_[2];
        for (int64_t i = 0; i < chunk.count; i += operand.lanes) {
          const int64_t filter = chunk.first + i;
          columns.tensor = from + filter / operand.repeat * operand.channel;
          columns.skip = filter % operand.repeat;
          columns.used = std::min(operand.lanes, chunk.count - i);
          operand.panels.gather(columns, to, operand.lanes);
          to += row_.vector;
        }
      }
    }
  }

  // A row of the grid.
  ReadRow<Sum> Row(int64_t z, int64_t y) const {
    ReadRow<Sum> row = row_;
    row.offset += z * unit_[0] + y * unit_[1];
    return row;
  }

  // Elements from one place of the grid to the next.
  int64_t Unit(int dim) const { return unit_[dim]; }

  // The places of an axis that exist: [low, high).
  int64_t Low(int dim) const { return low_[dim]; }
  int64_t High(int dim) const { return high_[dim]; }

 private:
  void SetRange(const Operand<Element>& operand, const Grid& grid, int i) {
    const int64_t from = grid.from[i], step = grid.step[i];
    low_[i] = from < 0 ? CeilDivide(-from, step) : 0;
    high_[i] =
        from < operand.size[i] ? (operand.size[i] - 1 - from) / step + 1 : 0;
    high_[i] = std::min(high_[i], grid.count[i]);
  }

  ReadRow<Sum> row_;
  int64_t unit_[3];
  int64_t low_[3], high_[3];
};

// Filters [first, first + count) for all taps: [vector][tap][lane].
template <typename Element>
void PackFilter(const Element* filter, int64_t taps, int64_t filters,
                const Chunk& chunk, int64_t lanes,
                const Panels<Element>& panels, SumType<Element>* to) {
  Columns<const Element> columns;
  columns.pitch = filters;
  columns.channel = columns.repeat = 1;
  columns.skip = 0;
  columns.count = taps;
  for (int64_t i = 0; i < chunk.count; i += lanes) {
    columns.tensor = filter + chunk.first + i;
    columns.used = std::min(lanes, chunk.count - i);
    panels.gather(columns, to + i * taps, lanes);
  }
}

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_OPERAND_H_
