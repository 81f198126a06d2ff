// How the work is cut: by the problem and the vectors' width only, never by the
// number of threads, so that every number of them gives the same bits.

#ifndef KCONV_ALGORITHMS_GROUPED_PLAN_H_
#define KCONV_ALGORITHMS_GROUPED_PLAN_H_

#include <cstdint>

#include "algorithms/grouped/grouped.h"
#include "axis.h"
#include "conv.h"
#include "split.h"

namespace kconv::grouped {

// How one tensor lies in memory, in elements.
struct Image {
  int64_t size[kMaxSpatialDims];
  int64_t image, place, channel;  // strides
  int64_t channels;

  Image(const ConvShape& s, bool is_input);
  // Of channel 0 of a place.
  int64_t Offset(int64_t n, int64_t d, int64_t h, int64_t w) const {
    return n * image + ((d * size[1] + h) * size[2] + w) * place;
  }
};

// Some rows and columns that are written, of one class of each axis.
struct Chunk {
  int64_t image, depth;
  AxisClass row, column;
  int64_t first_row, rows;        // numbers within the class
  int64_t first_column, columns;  // likewise
};

struct Plan {
  Plan(const Problem& problem, int64_t lanes);

  // Chunks of the whole batch. Some may be empty.
  int64_t Chunks() const;
  Chunk At(int64_t chunk) const;

  // Staged places of a row, from one column to the next: all, or where a
  // column's taps leave some out only its own.
  int64_t Pitch(const AxisClass& c) const { return std::min(c.stride, c.taps); }
  int64_t Places(const AxisClass& c, int64_t count) const {
    return c.taps == 0 ? 0 : Pitch(c) * (count - 1) + c.taps;
  }

  // Those of a unit's groups that exist.
  int64_t GroupsOf(int64_t unit) const {
    return std::min(unit_groups, groups - unit * unit_groups);
  }
  // The channels of a unit that has all its groups.
  Lanes Full(int64_t channels, int64_t width) const {
    return {slot, unit_groups, channels, width};
  }

  Axis axes[kMaxSpatialDims];
  Image read, written;  // the filter gradient "writes" the output's gradient
  int64_t batch, groups;
  int64_t in, out;  // channels of a group, read and written
  int64_t slot, unit_groups;
  int64_t x_width, y_width;
  Split units;  // in blocks, one of which a task takes

  int64_t rows, row_parts;        // of a chunk, at most
  int64_t columns, column_parts;  // likewise
  int64_t row_elements;           // of a staged row
  int64_t unit_elements;          // of a unit's staged rows
};

// Stages a strip of units [begin, end), given as that of unit `begin`; the last
// unit may have fewer groups than the others.
template <typename Element>
void StageUnits(const Plan& plan, const Kernel<Element>& kernel, int64_t begin,
                int64_t end, Strip<Element> strip) {
  const int64_t full =
      plan.GroupsOf(end - 1) == plan.unit_groups ? end : end - 1;
  strip.units = full - begin;
  if (full > begin) kernel.stage(strip);
  if (full == end) return;
  strip.from +=
      strip.units * plan.unit_groups * strip.lanes.channels * strip.channel;
  strip.to += strip.units * strip.to_unit;
  strip.units = 1;
  strip.lanes.groups = plan.GroupsOf(full);
  kernel.stage(strip);
}

// Copies the rows that a chunk reads, for units [begin, end), to `panel`. Row i
// of the class and tap u of the depth is number u * Places(row) + i.
template <typename Element>
void StageChunk(const Plan& plan, const Kernel<Element>& kernel,
                const Chunk& chunk, const Reach& depth, int64_t begin,
                int64_t end, const Element* tensor, SumType<Element>* panel);

// The rows of the kernel that a chunk's row number j meets: first <= u < end.
struct RowTaps {
  int64_t first, end;
  RowTaps(const AxisClass& c, int64_t j, int64_t read);
};

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_PLAN_H_
