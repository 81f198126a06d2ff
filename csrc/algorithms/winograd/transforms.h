// The transforms of Winograd convolution, for one tile and all its channels.
//
// F(m, r) computes m outputs of a filter of r taps from n = m + r - 1 inputs:
//   y = A^T [(G g) * (B^T d)]
// and, nested over two dimensions,
//   Y = A^T [(G g G^T) * (B^T d B)] A.
// In the field's letters U = G g G^T, V = B^T d B, and M is the product. Each
// of their n or n x n elements, the frequencies, is kept in a plane of its own,
// so that the sum over channels is one matrix product a plane.
//
// The filter gradient is a convolution as well, of the input by the gradient of
// the output: F(r, m), of r outputs and m taps, on the same n points. Its
// inputs are transformed by the same B^T.
//
// Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin and
// Gray, "Fast algorithms for convolutional neural networks", 2015.

#ifndef KCONV_ALGORITHMS_WINOGRAD_TRANSFORMS_H_
#define KCONV_ALGORITHMS_WINOGRAD_TRANSFORMS_H_

#include <stdint.h>

#include "activation.h"
#include "half.h"
#include "isa.h"

namespace kconv::winograd {

// A part of an image: element (i, j) of channel c lies at
// data[i * row_stride + j * column_stride + c * channel_stride]. Outside
// [row_begin, row_end) x [column_begin, column_end) zeros are read and nothing
// is written. Nested over one dimension only, it has one row.
template <typename Element>
struct Tile {
  Element* data;
  int64_t row_stride;
  int64_t column_stride;
  int64_t channel_stride;
  int row_begin;
  int row_end;
  int column_begin;
  int column_end;
};

// Reads a tile, writes its frequencies: that of channel c and plane f to
// to[f * plane + c]. Writes whole vectors: zeros follow the last channel.
template <typename Element>
using Expand = void (*)(const Tile<const Element>& tile, int64_t channels,
                        float* to, int64_t plane);

// What becomes of results before they are written.
struct Ending {
  const float* bias = nullptr;  // of each channel, whole vectors; null for none
  Activation activation = Activation::kNone;  // with a bias only
};

// Reads frequencies, whole vectors of them, writes a tile.
template <typename Element>
using Contract = void (*)(const float* from, int64_t plane, int64_t channels,
                          const Ending& ending, const Tile<Element>& tile);

template <typename Element>
struct ImageTransforms {
  Expand<Element> input;            // B^T d B
  Expand<Element> output_gradient;  // G g G^T of F(r, m)
  Contract<Element> output;         // A^T M A
};

struct Transforms {
  const char* isa;
  int outputs;  // m
  int taps;     // r
  ImageTransforms<float> of_float32;
  ImageTransforms<BFloat16> of_bfloat16;
  ImageTransforms<Float16> of_float16;
  Expand<float> filter;             // G g G^T
  Contract<float> filter_gradient;  // A^T M A of F(r, m)
};

// Those of an element type.
template <typename Element>
const ImageTransforms<Element>& TransformsOf(const Transforms& transforms);

// Every F(m, r) there is, nested over one and over two dimensions.
inline constexpr int kTransformPairs = 7;
struct TransformSet {
  Transforms nested[2][kTransformPairs];
};

// Null if there is no such F(m, r).
const Transforms* FindTransforms(Isa isa, int outputs, int taps, int dims);

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_TRANSFORMS_H_
