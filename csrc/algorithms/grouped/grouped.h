// Convolution of few channels a group, where a matrix product would be too
// thin: the rows that a task reads are staged in its scratch, and small kernels
// sum all taps and channels of some columns in registers.
//
// The groups are taken in units, which a vector or a few hold:
//
//   thin  Several groups share a vector, each in a slot of 2, 4 or 8 lanes. A
//         channel of the input is spread over its slot within the register.
//   wide  A unit is a group. A channel of the input is broadcast.
//
// Forward and input gradient are one: sums over the places that axis.h tells,
// with the roles of the channels swapped.

#ifndef KCONV_ALGORITHMS_GROUPED_GROUPED_H_
#define KCONV_ALGORITHMS_GROUPED_GROUPED_H_

#include <stdint.h>

#include "activation.h"
#include "half.h"
#include "isa.h"

namespace kconv {

struct ConvArgs;
struct Cpu;
struct Problem;
class Context;

namespace grouped {

// The channels of a unit, as they lie in memory and in the scratch: channel c
// of group g at lane g * slot + c. A wide unit has a slot of 0 and one group.
struct Lanes {
  int64_t slot;
  int64_t groups;    // those that exist
  int64_t channels;  // of a group
  int64_t width;     // lanes of a place in the scratch
};

// Places along a row of a tensor, to be staged for some units: zeros, elements,
// zeros. Lanes without a channel become zeros.
template <typename Element>
struct Strip {
  Lanes lanes;  // of each unit
  int64_t units;
  int64_t zeros_before, count, zeros_after;
  const Element* from;     // channel 0 of the first place that exists
  int64_t place, channel;  // elements between neighbours
  SumType<Element>* to;    // of the first zeros
  int64_t to_place, to_unit;
};

// Sums that go into a tensor.
template <typename Element>
struct Results {
  Lanes lanes;
  int64_t count;
  const SumType<Element>* from;  // lanes.width apart
  Element* to;
  int64_t place, channel;
};

// One row of sums of one unit: forward or input gradient. In row r of those
// that it reads, column j sums for each tap t < taps and channel c
//   x[r][j * x_column + t * width + c]  times  w[r][t * w_tap + c * y_width].
template <typename T>
struct ImageRow {
  int64_t slot;
  int64_t rows;
  const T* const* x;
  const T* const* w;
  int64_t columns, taps, channels;
  int64_t x_column;          // a multiple of the places' width
  int64_t x_width, y_width;  // lanes of a place read and written
  int64_t w_tap;
  int64_t lanes;  // of a place written, to be summed: whole vectors
  // Whether neighbouring columns are neighbouring places.
  bool is_dense;
  T* to;
  int64_t to_column;
  const T* bias;  // of each lane, or null: nothing follows
  Activation activation;
};

// Rows of the filter gradient of one unit and kernel row, added to
//   sums[t * channels * y_width + c * y_width].
template <typename T>
struct FilterRows {
  int64_t slot;
  int64_t rows;
  const T* const* x;
  const T* const* y;
  int64_t columns, taps, channels;
  int64_t x_column;
  int64_t x_width, y_width;
  bool is_dense;
  T* sums;
};

// What kernels may read past the columns of a row, in columns.
inline constexpr int64_t kSlackColumns = 12;

template <typename Element>
struct Kernel {
  const char* isa;
  int64_t lanes;  // of a vector of sums
  void (*stage)(const Strip<Element>&);
  void (*store)(const Results<Element>&);
  void (*image_row)(const ImageRow<SumType<Element>>&);
  void (*filter_rows)(const FilterRows<SumType<Element>>&);
};

struct Kernels {
  Kernel<float> float32;
  Kernel<double> float64;
  Kernel<BFloat16> bfloat16;
  Kernel<Float16> float16;
};

template <typename Element>
const Kernel<Element>& KernelFor(Isa isa);

template <typename Element>
void RunImagePass(const Problem& problem, const ConvArgs& args, Context* ctx);

template <typename Element>
void RunFilterGradient(const Problem& problem, const ConvArgs& args,
                       Context* ctx);

// Bytes of workspace: for all, and for each worker.
struct Workspace {
  int64_t shared, worker;
};
Workspace ImagePassWorkspace(const Problem& problem, Isa isa);
Workspace FilterGradientWorkspace(const Problem& problem, Isa isa);

// The work of a pass, in multiply-adds at the peak that take as long.
double WorkOf(const Problem& problem, const Cpu& cpu, Isa isa);

}  // namespace grouped
}  // namespace kconv

#endif  // KCONV_ALGORITHMS_GROUPED_GROUPED_H_
