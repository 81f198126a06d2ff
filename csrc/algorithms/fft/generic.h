// The transforms of tiles, written once over the vector width; isa/*.cc
// instantiate them.
//
// Rows are transformed two at a time, as real and imaginary part of one complex
// transform, and then columns. The columns of the frequencies 0 and n2 / 2 are
// those of real rows: they too share one transform, column 0 of the scratch. So
// nothing is mixed that does not belong to one tile of one channel.

#ifndef KCONV_ALGORITHMS_FFT_GENERIC_H_
#define KCONV_ALGORITHMS_FFT_GENERIC_H_

#include "algorithms/fft/codelets.h"
#include "algorithms/fft/transforms.h"
#include "epilogue.h"
#include "half.h"
#include "simd.h"

#define KCONV_INLINE __attribute__((always_inline)) inline

namespace kconv::fft {
namespace {

// The scratch: a row or column, room for its transform, and the columns.
template <typename T, int kBytes>
struct Room {
  static constexpr int64_t kSize = 2 * Simd<T, kBytes>::kLanes;

  T* line;
  T* spare;
  T* columns;
  int64_t column_stride;  // no power of two

  Room(const Grid<T>& grid, T* scratch)
      : line(scratch),
        spare(line + kMaxSize * kSize),
        columns(spare + 2 * kMaxSize * kSize),
        column_stride((grid.n[0] + 1) * kSize) {}
};

template <typename Element>
constexpr bool kIsItsSum = false;
template <>
constexpr bool kIsItsSum<float> = true;
template <>
constexpr bool kIsItsSum<double> = true;

// A row of a tile to every second vector of `to`.
template <int kBytes, typename Element>
KCONV_INLINE void LoadRow(const Tile<const Element>& tile, int64_t row,
                          int64_t points, SumType<Element>* to) {
  using T = SumType<Element>;
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  const typename S::Vector zero = {};
  const Element* from = tile.data + (row - tile.row_begin) * tile.row_stride;
  int64_t j = 0;
  const int64_t begin = tile.column_begin, end = tile.column_end;
  for (; j < begin; ++j) S::Store(to + j * kSize, zero);
  if (tile.lane_stride == 1 && tile.lanes == kLanes) {
    for (; j < end; ++j) {
      const Element* at = from + (j - begin) * tile.column_stride;
      if constexpr (kIsItsSum<Element>) {
        S::Store(to + j * kSize, S::Load(at));
      } else {
        WidenRow(at, to + j * kSize, kLanes);
      }
    }
  } else {
    int64_t lane = 0;
    if constexpr (kIsItsSum<Element>) {
      // Channels first: blocks of 4 x 4 are transposed in registers.
      if (tile.column_stride == 1) {
        for (; lane + 4 <= tile.lanes; lane += 4) {
          const Element* at = from + lane * tile.lane_stride;
          int64_t i = j;
          for (; i + 4 <= end; i += 4) {
            Transpose4x4(at + i - begin, tile.lane_stride,
                         to + i * kSize + lane, kSize);
          }
          for (; i < end; ++i) {
            for (int64_t l = 0; l < 4; ++l) {
              to[i * kSize + lane + l] = at[i - begin + l * tile.lane_stride];
            }
          }
        }
      }
    }
    for (; j < end; ++j) {
      const Element* at = from + (j - begin) * tile.column_stride;
      for (int64_t l = lane; l < tile.lanes; ++l) {
        to[j * kSize + l] = Widen(at[l * tile.lane_stride]);
      }
      for (int64_t l = tile.lanes; l < kLanes; ++l) to[j * kSize + l] = 0;
    }
  }
  for (; j < points; ++j) S::Store(to + j * kSize, zero);
}

template <int kBytes, typename Element>
KCONV_INLINE void StoreRow(const SumType<Element>* from,
                           const Ending<SumType<Element>>& ending,
                           const Bounds<SumType<Element>>& bounds, int64_t row,
                           const Tile<Element>& tile) {
  using T = SumType<Element>;
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  Element* to = tile.data + (row - tile.row_begin) * tile.row_stride;
  const bool finishes = ending.bias != nullptr;
  const typename S::Vector bias =
      finishes ? S::Load(ending.bias) : typename S::Vector{};
  const bool whole = tile.lane_stride == 1 && tile.lanes == kLanes;
  for (int64_t j = tile.column_begin; j < tile.column_end; ++j) {
    typename S::Vector v =
        S::Load(from + j * kSize) * S::Broadcast(ending.scale);
    if (finishes) v = Finish<S>(v, bias, bounds);
    Element* at = to + (j - tile.column_begin) * tile.column_stride;
    if constexpr (kIsItsSum<Element>) {
      if (whole) {
        S::Store(at, v);
        continue;
      }
    }
    T lanes[kLanes];
    S::Store(lanes, v);
    if (whole) {
      NarrowRow(lanes, at, kLanes);
    } else {
      for (int64_t l = 0; l < tile.lanes; ++l) {
        Narrow(lanes[l], at + l * tile.lane_stride);
      }
    }
  }
}

// Twice the spectra of two real rows, from that of the first plus i times the
// second, to rows of the columns.
template <typename T, int kBytes>
KCONV_INLINE void SplitRows(const T* z, int64_t points, bool both, T* to,
                            int64_t column_stride) {
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  const auto twice = S::Broadcast(2);
  const T* middle = z + points / 2 * kSize;
  S::Store(to, twice * S::Load(z));
  S::Store(to + kLanes, twice * S::Load(middle));
  if (both) {
    S::Store(to + kSize, twice * S::Load(z + kLanes));
    S::Store(to + kSize + kLanes, twice * S::Load(middle + kLanes));
  }
  for (int64_t f = 1; f < points / 2; ++f) {
    to += column_stride;
    const auto a = S::Load(z + f * kSize);
    const auto b = S::Load(z + f * kSize + kLanes);
    const auto c = S::Load(z + (points - f) * kSize);
    const auto d = S::Load(z + (points - f) * kSize + kLanes);
    S::Store(to, a + c);
    S::Store(to + kLanes, b - d);
    if (both) {
      S::Store(to + kSize, b + d);
      S::Store(to + kSize + kLanes, c - a);
    }
  }
}

// The way back: the first row plus i times the second.
template <typename T, int kBytes>
KCONV_INLINE void JoinRows(const T* from, int64_t column_stride, int64_t points,
                           bool both, T* z) {
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  const typename S::Vector zero = {};
  T* middle = z + points / 2 * kSize;
  S::Store(z, S::Load(from));
  S::Store(middle, S::Load(from + kLanes));
  S::Store(z + kLanes, both ? S::Load(from + kSize) : zero);
  S::Store(middle + kLanes, both ? S::Load(from + kSize + kLanes) : zero);
  for (int64_t f = 1; f < points / 2; ++f) {
    from += column_stride;
    const auto a = S::Load(from), b = S::Load(from + kLanes);
    const auto c = both ? S::Load(from + kSize) : zero;
    const auto d = both ? S::Load(from + kSize + kLanes) : zero;
    S::Store(z + f * kSize, a - d);
    S::Store(z + f * kSize + kLanes, b + c);
    S::Store(z + (points - f) * kSize, a + d);
    S::Store(z + (points - f) * kSize + kLanes, c - b);
  }
}

// The planes of a spectrum, one after another.
template <typename T, int kBytes>
class PlaneWriter {
  using S = Simd<T, kBytes>;
  using Vector = typename S::Vector;

 public:
  KCONV_INLINE explicit PlaneWriter(const Spectrum<T>& to)
      : to_(to), at_(to.data), whole_(to.lanes == S::kLanes) {}

  KCONV_INLINE void Write(Vector re, Vector im) {
    if (whole_) {
      S::Store(at_, re);
      S::Store(at_ + to_.component, im);
      if (to_.negates) S::Store(at_ + 2 * to_.component, -re);
    } else {
      T lanes[2][S::kLanes];
      S::Store(lanes[0], re);
      S::Store(lanes[1], im);
      for (int64_t l = 0; l < to_.lanes; ++l) {
        at_[l] = lanes[0][l];
        at_[to_.component + l] = lanes[1][l];
        if (to_.negates) at_[2 * to_.component + l] = -lanes[0][l];
      }
    }
    at_ += to_.plane;
  }

 private:
  const Spectrum<T>& to_;
  T* at_;
  bool whole_;
};

// The two spectra of real columns that share a transform.
template <typename T, int kBytes>
KCONV_INLINE void WriteShared(const T* z, int64_t points,
                              PlaneWriter<T, kBytes>* writer) {
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  const auto half = S::Broadcast(T(0.5));
  for (int second = 0; second < 2; ++second) {
    for (int64_t f = 0; f <= points / 2; ++f) {
      const int64_t mirrored = f == 0 ? 0 : points - f;
      const auto a = S::Load(z + f * kSize);
      const auto b = S::Load(z + f * kSize + kLanes);
      const auto c = S::Load(z + mirrored * kSize);
      const auto d = S::Load(z + mirrored * kSize + kLanes);
      if (second) {
        writer->Write(half * (b + d), half * (c - a));
      } else {
        writer->Write(half * (a + c), half * (b - d));
      }
    }
  }
}

template <typename T, int kBytes>
KCONV_INLINE void ReadShared(const Spectrum<const T>& from, int64_t points,
                             T* z) {
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  const T* first = from.data;
  const T* second = first + (points / 2 + 1) * from.plane;
  for (int64_t f = 0; f <= points / 2; ++f) {
    const int64_t mirrored = f == 0 ? 0 : points - f;
    const auto a = S::Load(first + f * from.plane);
    const auto b = S::Load(first + f * from.plane + from.component);
    const auto c = S::Load(second + f * from.plane);
    const auto d = S::Load(second + f * from.plane + from.component);
    S::Store(z + mirrored * kSize, a + d);
    S::Store(z + mirrored * kSize + kLanes, c - b);
    S::Store(z + f * kSize, a - d);
    S::Store(z + f * kSize + kLanes, b + c);
  }
}

// The rows of a tile, transformed, to the columns of the scratch.
template <int kBytes, typename Element>
KCONV_INLINE void ForwardRows(const Grid<SumType<Element>>& grid,
                              const Tile<const Element>& tile,
                              const Room<SumType<Element>, kBytes>& room) {
  using T = SumType<Element>;
  using S = Simd<T, kBytes>;
  constexpr int64_t kSize = 2 * S::kLanes;
  const auto transform = TransformOf<T, kBytes, false>(grid.size[1]);
  for (int64_t f = 0; f < grid.n[1] / 2; ++f) {
    T* column = room.columns + f * room.column_stride;
    __builtin_memset(column, 0, sizeof(T) * kSize * tile.row_begin);
    __builtin_memset(column + tile.row_end * kSize, 0,
                     sizeof(T) * kSize * (grid.n[0] - tile.row_end));
  }
  for (int64_t i = tile.row_begin; i < tile.row_end; i += 2) {
    const bool both = i + 1 < tile.row_end;
    LoadRow<kBytes>(tile, i, grid.n[1], room.line);
    if (both) {
      LoadRow<kBytes>(tile, i + 1, grid.n[1], room.line + S::kLanes);
    } else {
      for (int64_t j = 0; j < grid.n[1]; ++j) {
        S::Store(room.line + j * kSize + S::kLanes, typename S::Vector{});
      }
    }
    transform(room.line, room.line, room.spare, grid.twiddles[1]);
    SplitRows<T, kBytes>(room.line, grid.n[1], both, room.columns + i * kSize,
                         room.column_stride);
  }
}

template <int kBytes, typename Element>
void Forward(const Grid<SumType<Element>>& grid,
             const Tile<const Element>& tile, SumType<Element>* scratch,
             const Spectrum<SumType<Element>>& to) {
  using T = SumType<Element>;
  using S = Simd<T, kBytes>;
  constexpr int64_t kSize = 2 * S::kLanes;
  const Room<T, kBytes> room(grid, scratch);
  ForwardRows<kBytes>(grid, tile, room);
  const auto transform = TransformOf<T, kBytes, false>(grid.size[0]);
  PlaneWriter<T, kBytes> writer(to);
  for (int64_t f = 0; f < grid.n[1] / 2; ++f) {
    transform(room.columns + f * room.column_stride, room.line, room.spare,
              grid.twiddles[0]);
    if (f == 0) {
      WriteShared<T, kBytes>(room.line, grid.n[0], &writer);
      continue;
    }
    for (int64_t i = 0; i < grid.n[0]; ++i) {
      const T* at = room.line + i * kSize;
      writer.Write(S::Load(at), S::Load(at + S::kLanes));
    }
  }
}

template <int kBytes, typename Element>
KCONV_INLINE void BackwardRows(const Grid<SumType<Element>>& grid,
                               const Room<SumType<Element>, kBytes>& room,
                               const Ending<SumType<Element>>& ending,
                               const Tile<Element>& tile) {
  using T = SumType<Element>;
  using S = Simd<T, kBytes>;
  constexpr int64_t kSize = 2 * S::kLanes;
  const auto transform = TransformOf<T, kBytes, true>(grid.size[1]);
  const Bounds<T> bounds(ending.activation);
  for (int64_t i = tile.row_begin; i < tile.row_end; i += 2) {
    const bool both = i + 1 < tile.row_end;
    JoinRows<T, kBytes>(room.columns + i * kSize, room.column_stride, grid.n[1],
                        both, room.line);
    transform(room.line, room.line, room.spare, grid.twiddles[1]);
    StoreRow<kBytes>(room.line, ending, bounds, i, tile);
    if (both)
      StoreRow<kBytes>(room.line + S::kLanes, ending, bounds, i + 1, tile);
  }
}

template <int kBytes, typename Element>
void Backward(const Grid<SumType<Element>>& grid,
              const Spectrum<const SumType<Element>>& from,
              const Ending<SumType<Element>>& ending, SumType<Element>* scratch,
              const Tile<Element>& tile) {
  using T = SumType<Element>;
  using S = Simd<T, kBytes>;
  constexpr int64_t kSize = 2 * S::kLanes;
  const Room<T, kBytes> room(grid, scratch);
  const auto transform = TransformOf<T, kBytes, true>(grid.size[0]);
  const T* at = from.data + 2 * (grid.n[0] / 2 + 1) * from.plane;
  for (int64_t f = 0; f < grid.n[1] / 2; ++f) {
    if (f == 0) {
      ReadShared<T, kBytes>(from, grid.n[0], room.line);
    } else {
      for (int64_t i = 0; i < grid.n[0]; ++i, at += from.plane) {
        S::Store(room.line + i * kSize, S::Load(at));
        S::Store(room.line + i * kSize + S::kLanes,
                 S::Load(at + from.component));
      }
    }
    transform(room.line, room.columns + f * room.column_stride, room.spare,
              grid.twiddles[0]);
  }
  BackwardRows<kBytes>(grid, room, ending, tile);
}

template <typename T, int kBytes>
void Multiply(int64_t planes, const T* x, const T* y, bool accumulate, T* sum) {
  using S = Simd<T, kBytes>;
  constexpr int64_t kLanes = S::kLanes, kSize = 2 * kLanes;
  for (int64_t i = 0; i < planes * kSize; i += kSize) {
    const auto a = S::Load(x + i), b = S::Load(x + i + kLanes);
    const auto c = S::Load(y + i), d = S::Load(y + i + kLanes);
    auto re = a * c + b * d;
    auto im = b * c - a * d;
    if (accumulate) {
      re += S::Load(sum + i);
      im += S::Load(sum + i + kLanes);
    }
    S::Store(sum + i, re);
    S::Store(sum + i + kLanes, im);
  }
}

template <int kBytes, typename Element>
constexpr Transforms<Element> MakeTransforms(const char* isa) {
  using T = SumType<Element>;
  return {isa, Simd<T, kBytes>::kLanes, Forward<kBytes, Element>,
          Backward<kBytes, Element>, Multiply<T, kBytes>};
}

template <int kBytes>
constexpr TransformSet MakeTransformSet(const char* isa) {
  return {MakeTransforms<kBytes, float>(isa),
          MakeTransforms<kBytes, double>(isa),
          MakeTransforms<kBytes, BFloat16>(isa),
          MakeTransforms<kBytes, Float16>(isa)};
}

}  // namespace
}  // namespace kconv::fft

#undef KCONV_INLINE

#endif  // KCONV_ALGORITHMS_FFT_GENERIC_H_
