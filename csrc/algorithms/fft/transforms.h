// Two-dimensional real transforms of tiles, for vectors of neighbouring
// channels.
//
// Of a tile of n1 x n2 real numbers the half spectrum is kept, n1 n2 / 2 + 2
// complex numbers, in planes:
//
//   frequency 0 of the second axis, frequencies 0 ... n1 / 2 of the first
//   frequency n2 / 2 of the second axis, frequencies 0 ... n1 / 2
//   frequency f of the second axis, 0 < f < n2 / 2, all n1 of the first
//
// What it lacks are conjugates of these. Neither transform scales: forward
// makes twice the spectrum, backward n1 n2 times the numbers.

#ifndef KCONV_ALGORITHMS_FFT_TRANSFORMS_H_
#define KCONV_ALGORITHMS_FFT_TRANSFORMS_H_

#include <stdint.h>

#include "activation.h"
#include "algorithms/fft/sizes.h"
#include "half.h"
#include "isa.h"

namespace kconv::fft {

// The transforms of a tile: their lengths, by number in kSizes, and twiddles.
template <typename T>
struct Grid {
  int size[2];
  int64_t n[2];
  const T* twiddles[2];

  int64_t Planes() const { return 2 * (n[0] / 2 + 1) + (n[1] / 2 - 1) * n[0]; }
};

// A tile of an image, or of a filter. Element (i, j) of lane l is at
//
//   data + (i - row_begin) * row_stride + (j - column_begin) * column_stride +
//       l * lane_stride
//
// and exists within the rows and columns given. Where there is none the tile is
// zero.
template <typename Element>
struct Tile {
  Element* data;
  int64_t row_stride, column_stride, lane_stride;
  int64_t row_begin, row_end, column_begin, column_end;
  int64_t lanes;  // that exist

  // To be read only.
  operator Tile<const Element>() const {
    return {data,    row_stride,   column_stride, lane_stride, row_begin,
            row_end, column_begin, column_end,    lanes};
  }
};

// Where the planes of a spectrum lie: of plane p the real parts at p * plane,
// the imaginary ones `component` after them and, if `negates`, the negative
// real ones `component` after those.
template <typename T>
struct Spectrum {
  T* data;
  int64_t plane, component;
  int64_t lanes;  // that are written
  bool negates;
};

// What is done to a result: scaled, then finished as epilogue.h says.
template <typename T>
struct Ending {
  T scale;
  const T* bias = nullptr;  // of whole vectors; null: nothing
  Activation activation = Activation::kNone;
};

template <typename Element>
struct Transforms {
  using Sum = SumType<Element>;
  const char* isa;
  int64_t lanes;
  void (*forward)(const Grid<Sum>& grid, const Tile<const Element>& tile,
                  Sum* scratch, const Spectrum<Sum>& to);
  // Of the lanes of `from` whole vectors are read.
  void (*backward)(const Grid<Sum>& grid, const Spectrum<const Sum>& from,
                   const Ending<Sum>& ending, Sum* scratch,
                   const Tile<Element>& tile);
  // sum (+)= x conj(y), for planes of one vector each: [plane][2][lanes].
  void (*multiply)(int64_t planes, const Sum* x, const Sum* y, bool accumulate,
                   Sum* sum);
};

// Numbers of scratch that a transform takes.
template <typename T>
int64_t ScratchSize(const Grid<T>& grid, int64_t lanes) {
  return 2 * lanes * (3 * kMaxSize + grid.n[1] / 2 * (grid.n[0] + 1));
}

struct TransformSet {
  Transforms<float> float32;
  Transforms<double> float64;
  Transforms<BFloat16> bfloat16;
  Transforms<Float16> float16;
};

template <typename Element>
const Transforms<Element>& TransformsFor(Isa isa);

// The grid of two lengths, by their numbers in kSizes.
template <typename T>
Grid<T> GridOf(int size1, int size2);

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_TRANSFORMS_H_
