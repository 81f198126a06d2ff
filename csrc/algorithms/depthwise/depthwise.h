// Convolution of each channel by itself, a vector of channels at a time.
//
// The lanes of a vector are neighbouring channels of one pixel, so that a sum
// over taps needs no shuffles, whatever the kernel, stride or dilation. Tensors
// that do not lie so, or are not of the type of the sums, are gathered into
// panels first: [row][column][lane].

#ifndef KCONV_ALGORITHMS_DEPTHWISE_DEPTHWISE_H_
#define KCONV_ALGORITHMS_DEPTHWISE_DEPTHWISE_H_

#include <stdint.h>

#include "activation.h"
#include "half.h"
#include "isa.h"

namespace kconv::depthwise {

// Taps of a row of the kernel that a kernel of ours takes at a time: as many
// weights, sums and one pixel fill the 16 registers of AVX2.
inline constexpr int64_t kMostTaps = 7;

// A row of a tensor that is read. Column u of it begins at data + offset + u
// pitch, and exists for low <= u < high; further vectors of channels lie
// `vector` elements behind one another.
template <typename T>
struct ReadRow {
  const T* data;
  int64_t offset;
  int64_t pitch;
  int64_t vector;
  int64_t low, high;
};

// Some columns of a row of outputs or, in the input gradient, of inputs:
//
//   to[j] = sum over taps (z, y, x) of weights[z][y][x] read[z][y][stride j +
//   x]
//
// for `vectors` vectors of channels, which follow one another in what is
// written. Every tap (z, y) exists.
template <typename T>
struct ImageRow {
  ReadRow<T> read;
  int64_t read_z, read_y;  // elements from tap to tap
  int64_t stride;
  int64_t taps[3];
  const T* weights;  // of the first tap
  int64_t weights_step[3];
  int64_t weights_vector;  // elements from vector to vector
  T* to;
  int64_t to_pitch;
  int64_t columns;
  int64_t vectors;
  const T* bias;  // or null
  Activation activation;
  // Rows that the next call will read and this one does not, to be fetched into
  // the cache: how many, elements from the first row read to the first of them,
  // and from the row written to the next.
  int64_t fetch_rows, fetch, fetch_to;
};

// Some rows of the sums of a filter gradient, one vector of channels:
//
//   sums[y][x] += sum over rows i and columns j of
//                   gradient[i][j] read[i][y][stride j + x]
//
// where every row exists. Sums of a row of taps follow one another.
template <typename T>
struct FilterRows {
  ReadRow<T> read;
  int64_t read_row, read_y;  // elements from output row to row, tap to tap
  int64_t stride;
  int64_t taps_y, taps_x;  // at most RowsOfTaps(taps_x) and kMostTaps
  const T* gradient;
  int64_t gradient_row, gradient_pitch;
  int64_t rows, columns;
  T* sums;
  int64_t sums_y;  // elements from a row of taps to the next
  // As in ImageRow, of the next rows: elements from each row of what is read
  // and of the gradient to the one to be fetched with it.
  int64_t fetch_rows, fetch, fetch_gradient;
};

// Rows of taps whose sums fit the registers together.
constexpr int64_t RowsOfTaps(int64_t taps_x) {
  return taps_x <= 3 ? 3 : taps_x <= 5 ? 2 : 1;
}

template <typename T>
struct Kernel {
  const char* isa;
  int64_t lanes;
  void (*image)(const ImageRow<T>&);
  void (*filter)(const FilterRows<T>&);
};

// Columns of a tensor against a panel of `lanes` lanes, of which the first
// `used` stand for channels of it: lane l for channel (l + skip) / repeat,
// where `repeat` filters share a channel.
template <typename Element>
struct Columns {
  Element* tensor;  // channel 0 of the first column
  int64_t pitch;    // elements from column to column
  int64_t channel;  // elements from channel to channel
  int64_t count;
  int64_t used;
  int64_t repeat, skip;
};

template <typename Element>
struct Panels {
  // panel[column][lane] = the lane's channel, and zero in lanes that stand for
  // none.
  void (*gather)(const Columns<const Element>&, SumType<Element>* panel,
                 int64_t lanes);
  // Each channel = the sum of its lanes, all of which are there: skip is 0.
  void (*scatter)(const Columns<Element>&, const SumType<Element>* panel,
                  int64_t lanes);
};

struct Kernels {
  Kernel<float> float32;
  Kernel<double> float64;
  Panels<float> float32_panels;
  Panels<double> float64_panels;
  Panels<BFloat16> bfloat16_panels;
  Panels<Float16> float16_panels;
};

const Kernels& KernelsFor(Isa isa);

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_DEPTHWISE_H_
