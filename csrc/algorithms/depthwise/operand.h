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

// The places of a grid along an axis that exist: number low, ..., high - 1.
struct Range {
  int64_t low, high;

  Range() = default;
  template <typename Element>
  Range(const Operand<Element>& operand, const Grid& grid, int dim) {
    const int64_t from = grid.from[dim], step = grid.step[dim];
    low = from < 0 ? CeilDivide(-from, step) : 0;
    high = from < operand.size[dim] ? (operand.size[dim] - 1 - from) / step + 1
                                    : 0;
    high = std::min(high, grid.count[dim]);
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
    for (int i = 0; i < 3; ++i) range_[i] = Range(operand, grid, i);
    row_.low = range_[2].low;
    row_.high = std::max(range_[2].low, range_[2].high);
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
    columns.count = range_[2].high - range_[2].low;
    columns.repeat = operand.repeat;
    if (columns.count <= 0) return;
    for (int64_t z = range_[0].low; z < range_[0].high; ++z) {
      for (int64_t y = range_[1].low; y < range_[1].high; ++y) {
        const Element* from =
            operand.data + image * operand.image +
            (grid.from[0] + z * grid.step[0]) * operand.stride[0] +
            (grid.from[1] + y * grid.step[1]) * operand.stride[1] +
            (grid.from[2] + range_[2].low * grid.step[2]) * operand.stride[2];
        Sum* to =
            panel + z * unit_[0] + y * unit_[1] + range_[2].low * unit_[2];
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
  int64_t Low(int dim) const { return range_[dim].low; }
  int64_t High(int dim) const { return range_[dim].high; }

 private:
  ReadRow<Sum> row_;
  int64_t unit_[3];
  Range range_[3];
};

// Fetches what a panel will be made of into the cache, a little at a time while
// another one is in use: pixels of a chunk lie too far apart for the processor
// to see what comes next.
template <typename Element>
class Ahead {
 public:
  Ahead() = default;

  // Rows from `skipped` on, in `parts` parts.
  Ahead(const Operand<Element>& operand, int64_t image, const Grid& grid,
        const Chunk& chunk, int64_t skipped, int64_t parts) {
    // Of one channel, pixels lie next to one another.
    if (!operand.NeedsPanel(chunk) || operand.channel != 1) return;
    Range range[3];
    for (int i = 0; i < 3; ++i) range[i] = Range(operand, grid, i);
    range[1].low = std::max(range[1].low, skipped);
    first_ =
        operand.data + image * operand.image + chunk.first / operand.repeat;
    for (int i = 0; i < 3; ++i) {
      count_[i] = range[i].high - range[i].low;
      if (count_[i] <= 0) return;
      step_[i] = grid.step[i] * operand.stride[i];
      first_ +=
          (grid.from[i] + range[i].low * grid.step[i]) * operand.stride[i];
    }
    bytes_ = (chunk.count - 1) / operand.repeat * int64_t{sizeof(Element)};
    total_ = count_[0] * count_[1] * count_[2];
    part_ = CeilDivide(total_, std::max<int64_t>(parts, 1));
  }

  // The next part.
  void Fetch() {
    const int64_t end = std::min(done_ + part_, total_);
    while (done_ < end) {
      const int64_t row = done_ / count_[2];
      const int64_t begin = done_ % count_[2];
      const int64_t some = std::min(end - done_, count_[2] - begin);
      const Element* from = first_ + row / count_[1] * step_[0] +
                            row % count_[1] * step_[1] + begin * step_[2];
      for (int64_t i = 0; i < some; ++i) {
        const char* at = reinterpret_cast<const char*>(from + i * step_[2]);
        __builtin_prefetch(at);
        // Those in between are rarely more than none.
        for (int64_t byte = 64; byte < bytes_; byte += 64) {
          __builtin_prefetch(at + byte);
        }
        __builtin_prefetch(at + bytes_);
      }
      done_ += some;
    }
  }

 private:
  const Element* first_ = nullptr;
  int64_t count_[3] = {}, step_[3] = {};
  int64_t bytes_ = 0;
  int64_t total_ = 0, part_ = 0, done_ = 0;
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
