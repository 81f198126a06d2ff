// The transforms, written once over the vector width; isa/*.cc instantiate
// them.

#ifndef KCONV_ALGORITHMS_WINOGRAD_GENERIC_H_
#define KCONV_ALGORITHMS_WINOGRAD_GENERIC_H_

#include "algorithms/winograd/linear.h"
#include "algorithms/winograd/matrices.h"
#include "algorithms/winograd/transforms.h"
#include "epilogue.h"
#include "half.h"
#include "simd.h"

namespace kconv::winograd {
namespace {

// What is stored for a result.
struct AsItIs {
  template <typename Vector>
  KCONV_INLINE Vector operator()(Vector v) const {
    return v;
  }
};

template <int kBytes>
struct Finished {
  using S = Simd<float, kBytes>;
  typename S::Vector bias;
  Bounds<float> bounds;
  KCONV_INLINE typename S::Vector operator()(typename S::Vector v) const {
    return Finish<S>(v, bias, bounds);
  }
};

// The transform of one vector of channels: element (i, j) of the source at
// from[i * row_stride + j * column_stride], that of the result at
// to[i * to_row + j * to_column].
template <typename Matrix, int kBytes, int kDims, typename Stored>
KCONV_INLINE void Transform(const float* from, int64_t row_stride,
                            int64_t column_stride, const Stored& stored,
                            float* to, int64_t to_row, int64_t to_column) {
  using S = Simd<float, kBytes>;
  using Vector = typename S::Vector;
  constexpr int kIn = Matrix::kColumns;
  constexpr int kOut = Matrix::kRows;
  Vector x[kIn], y[kOut];
  if constexpr (kDims == 1) {
#pragma GCC unroll 8
    for (int j = 0; j < kIn; ++j) x[j] = S::Load(from + j * column_stride);
    Apply<Matrix>(x, y);
#pragma GCC unroll 8
    for (int j = 0; j < kOut; ++j) {
      S::Store(to + j * to_column, stored(y[j]));
    }
  } else {
    Vector between[kIn][kOut];  // of each column, its rows transformed
    for (int j = 0; j < kIn; ++j) {
#pragma GCC unroll 8
      for (int i = 0; i < kIn; ++i) {
        x[i] = S::Load(from + i * row_stride + j * column_stride);
      }
      Apply<Matrix>(x, between[j]);
    }
    for (int i = 0; i < kOut; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < kIn; ++j) x[j] = between[j][i];
      Apply<Matrix>(x, y);
#pragma GCC unroll 8
      for (int j = 0; j < kOut; ++j) {
        S::Store(to + i * to_row + j * to_column, stored(y[j]));
      }
    }
  }
}

// Whether vectors can be read or written in place.
template <typename Element>
constexpr bool kIsFloat = false;
template <>
constexpr bool kIsFloat<float> = true;

template <int kSize, int kRowCount, typename Element>
inline bool IsWhole(const Tile<Element>& tile) {
  return tile.channel_stride == 1 && tile.row_begin == 0 &&
         tile.row_end == kRowCount && tile.column_begin == 0 &&
         tile.column_end == kSize;
}

template <typename Matrix, int kBytes, int kDims, typename Element>
void ExpandTile(const Tile<const Element>& tile, int64_t channels, float* to,
                int64_t plane) {
  constexpr int kIn = Matrix::kColumns;
  constexpr int kInRows = kDims == 2 ? kIn : 1;
  constexpr int64_t kOut = Matrix::kRows;
  constexpr int64_t kLanes = Simd<float, kBytes>::kLanes;
  int64_t c = 0;
  if constexpr (kIsFloat<Element>) {
    if (IsWhole<kIn, kInRows>(tile)) {
      for (; c + kLanes <= channels; c += kLanes) {
        Transform<Matrix, kBytes, kDims>(tile.data + c, tile.row_stride,
                                         tile.column_stride, AsItIs(), to + c,
                                         kOut * plane, plane);
      }
    }
  }
  for (; c < channels; c += kLanes) {
    const int64_t count = Min(kLanes, channels - c);
    float copy[kInRows][kIn][kLanes] = {};
    for (int i = tile.row_begin; i < tile.row_end; ++i) {
      for (int j = tile.column_begin; j < tile.column_end; ++j) {
        const Element* from = tile.data + i * tile.row_stride +
                              j * tile.column_stride + c * tile.channel_stride;
        if (count == kLanes && tile.channel_stride == 1) {
#pragma GCC unroll 1
          for (int l = 0; l < kLanes; ++l) copy[i][j][l] = Widen(from[l]);
        } else {
          for (int64_t l = 0; l < count; ++l) {
            copy[i][j][l] = Widen(from[l * tile.channel_stride]);
          }
        }
      }
    }
    Transform<Matrix, kBytes, kDims>(copy[0][0], kIn * kLanes, kLanes, AsItIs(),
                                     to + c, kOut * plane, plane);
  }
}

template <typename Matrix, int kBytes, int kDims, typename Element,
          typename Stored>
KCONV_INLINE void ContractVector(const float* from, int64_t plane,
                                 const Stored& stored, bool is_whole,
                                 int64_t channel, int64_t count,
                                 const Tile<Element>& tile) {
  constexpr int64_t kIn = Matrix::kColumns;
  constexpr int kOut = Matrix::kRows;
  constexpr int kOutRows = kDims == 2 ? kOut : 1;
  constexpr int64_t kLanes = Simd<float, kBytes>::kLanes;
  if constexpr (kIsFloat<Element>) {
    if (is_whole && count == kLanes) {
      Transform<Matrix, kBytes, kDims>(from, kIn * plane, plane, stored,
                                       tile.data + channel, tile.row_stride,
                                       tile.column_stride);
      return;
    }
  }
  float result[kOutRows][kOut][kLanes];
  Transform<Matrix, kBytes, kDims>(from, kIn * plane, plane, stored,
                                   result[0][0], kOut * kLanes, kLanes);
  for (int i = tile.row_begin; i < tile.row_end; ++i) {
    for (int j = tile.column_begin; j < tile.column_end; ++j) {
      Element* to = tile.data + i * tile.row_stride + j * tile.column_stride +
                    channel * tile.channel_stride;
      for (int64_t l = 0; l < count; ++l) {
        Narrow(result[i][j][l], to + l * tile.channel_stride);
      }
    }
  }
}

template <typename Matrix, int kBytes, int kDims, typename Element>
void ContractTile(const float* from, int64_t plane, int64_t channels,
                  const Ending& ending, const Tile<Element>& tile) {
  constexpr int kOutRows = kDims == 2 ? Matrix::kRows : 1;
  using S = Simd<float, kBytes>;
  const bool is_whole = IsWhole<Matrix::kRows, kOutRows>(tile);
  const Bounds<float> bounds(ending.activation);
  for (int64_t c = 0; c < channels; c += S::kLanes) {
    const int64_t count = Min(S::kLanes, channels - c);
    if (ending.bias == nullptr) {
      ContractVector<Matrix, kBytes, kDims>(from + c, plane, AsItIs(), is_whole,
                                            c, count, tile);
    } else {
      const Finished<kBytes> finished = {S::Load(ending.bias + c), bounds};
      ContractVector<Matrix, kBytes, kDims>(from + c, plane, finished, is_whole,
                                            c, count, tile);
    }
  }
}

template <int kBytes, int kDims, int kOutputs, int kTaps, typename Element>
constexpr ImageTransforms<Element> MakeImageTransforms() {
  using Table = CookToom<kOutputs, kTaps>;
  using Reverse = CookToom<kTaps, kOutputs>;
  return {ExpandTile<InputMatrix<Table>, kBytes, kDims, Element>,
          ExpandTile<FilterMatrix<Reverse, kOutputs>, kBytes, kDims, Element>,
          ContractTile<OutputMatrix<Table, kOutputs>, kBytes, kDims, Element>};
}

template <int kBytes, int kDims, int kOutputs, int kTaps>
constexpr Transforms MakeTransforms(const char* isa) {
  using Table = CookToom<kOutputs, kTaps>;
  using Reverse = CookToom<kTaps, kOutputs>;
  return {isa,
          kOutputs,
          kTaps,
          MakeImageTransforms<kBytes, kDims, kOutputs, kTaps, float>(),
          MakeImageTransforms<kBytes, kDims, kOutputs, kTaps, BFloat16>(),
          MakeImageTransforms<kBytes, kDims, kOutputs, kTaps, Float16>(),
          ExpandTile<FilterMatrix<Table, kTaps>, kBytes, kDims, float>,
          ContractTile<OutputMatrix<Reverse, kTaps>, kBytes, kDims, float>};
}

template <int kBytes>
constexpr TransformSet MakeTransformSet(const char* isa) {
  return {{{MakeTransforms<kBytes, 1, 2, 3>(isa),
            MakeTransforms<kBytes, 1, 4, 3>(isa),
            MakeTransforms<kBytes, 1, 6, 3>(isa),
            MakeTransforms<kBytes, 1, 2, 5>(isa),
            MakeTransforms<kBytes, 1, 4, 5>(isa),
            MakeTransforms<kBytes, 1, 2, 2>(isa),
            MakeTransforms<kBytes, 1, 4, 2>(isa)},
           {MakeTransforms<kBytes, 2, 2, 3>(isa),
            MakeTransforms<kBytes, 2, 4, 3>(isa),
            MakeTransforms<kBytes, 2, 6, 3>(isa),
            MakeTransforms<kBytes, 2, 2, 5>(isa),
            MakeTransforms<kBytes, 2, 4, 5>(isa),
            MakeTransforms<kBytes, 2, 2, 2>(isa),
            MakeTransforms<kBytes, 2, 4, 2>(isa)}}};
}

}  // namespace
}  // namespace kconv::winograd

#undef KCONV_INLINE

#endif  // KCONV_ALGORITHMS_WINOGRAD_GENERIC_H_
