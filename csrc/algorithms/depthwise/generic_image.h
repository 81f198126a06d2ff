// Rows of outputs or, in the input gradient, of inputs. Part of generic.h.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_GENERIC_IMAGE_H_
#define KCONV_ALGORITHMS_DEPTHWISE_GENERIC_IMAGE_H_

#include "algorithms/depthwise/depthwise.h"
#include "epilogue.h"
#include "simd.h"

namespace kconv::depthwise {
namespace {

template <typename T, int kBytes>
class ImageKernel {
 public:
  static void Run(const ImageRow<T>& p) {
    if (p.taps[0] == 0 || p.taps[1] == 0 || p.taps[2] == 0) {
      ImageRow<T> none = p;
      none.taps[0] = 0;
      return Whole<1, 1>(none);
    }
    if (p.stride > 2) return InBlocks(p, AnyStride(p));
    if (p.taps[2] > kMostTaps) {
      return p.stride == 1 ? InBlocks(p, Pieces<1>(p))
                           : InBlocks(p, Pieces<2>(p));
    }
    switch (p.taps[2] * 2 + p.stride) {
      case 3:
        return Whole<1, 1>(p);
      case 4:
        return Whole<1, 2>(p);
      case 5:
        return Whole<2, 1>(p);
      case 6:
        return Whole<2, 2>(p);
      case 7:
        return Whole<3, 1>(p);
      case 8:
        return Whole<3, 2>(p);
      case 9:
        return Whole<4, 1>(p);
      case 10:
        return Whole<4, 2>(p);
      case 11:
        return Whole<5, 1>(p);
      case 12:
        return Whole<5, 2>(p);
      case 13:
        return Whole<6, 1>(p);
      case 14:
        return Whole<6, 2>(p);
      case 15:
        return Whole<7, 1>(p);
      default:
        return Whole<7, 2>(p);
    }
  }

 private:
  using S = Simd<T, kBytes>;
  using V = typename S::Vector;

  // Columns whose sums stay in registers: seven divide the widths of most
  // networks, 7, 14, 28, 56, 112, and leave room for as many weights.
  static constexpr int kBlock = kBytes == 64 ? 14 : 7;
  static constexpr int kSmallBlock = 4;

  static constexpr int kVectorsOfLine = kBytes < 64 ? 64 / kBytes : 1;

  // Where a block begins in what is read.
  struct Place {
    const T* weights;
    int64_t at;    // offset of read column 0
    int64_t low;   // first read column that exists
    int64_t span;  // and how many do

    Place(const ImageRow<T>& p, int64_t column, int64_t vector, int64_t tap)
        : weights(p.weights + vector * p.weights_vector +
                  tap * p.weights_step[2]),
          at(p.read.offset + (p.stride * column + tap) * p.read.pitch +
             vector * p.read.vector),
          low(p.read.low - p.stride * column - tap),
          span(p.read.high - p.read.low) {}

    bool Has(int64_t column) const {
      return static_cast<uint64_t>(column - low) < static_cast<uint64_t>(span);
    }
  };

  // Adds the next kTaps taps of each row of the kernel. Every column that is
  // read is loaded once, and meets those outputs that have a tap for it.
  template <int kTaps, int kStride, int kColumns, bool kClip>
  static inline __attribute__((always_inline)) void Add(const ImageRow<T>& p,
                                                        const Place& place,
                                                        V* sum) {
    constexpr int kReads = (kColumns - 1) * kStride + kTaps;
    const int64_t pitch = p.read.pitch;
    for (int64_t z = 0; z < p.taps[0]; ++z) {
      for (int64_t y = 0; y < p.taps[1]; ++y) {
        const T* from =
            place.weights + z * p.weights_step[0] + y * p.weights_step[1];
        V weight[kTaps];
#pragma GCC unroll 8
        for (int t = 0; t < kTaps; ++t) {
          weight[t] = S::Load(from + t * p.weights_step[2]);
        }
        const T* at = p.read.data + place.at + z * p.read_z + y * p.read_y;
        int64_t number = -place.low;
#pragma GCC unroll 64
        for (int i = 0; i < kReads; ++i, Advance(&at, pitch)) {
          if (kClip) {
            const bool is_there = static_cast<uint64_t>(number) <
                                  static_cast<uint64_t>(place.span);
            Advance(&number, 1);
            if (!is_there) continue;
          }
          const V x = S::Load(at);
#pragma GCC unroll 8
          for (int t = 0; t < kTaps; ++t) {
            if (i >= t && (i - t) % kStride == 0 &&
                (i - t) / kStride < kColumns) {
              sum[(i - t) / kStride] += x * weight[t];
            }
          }
        }
      }
    }
  }

  // Images are as good as never in the first-level cache, and columns lie too
  // far apart for the processor to see what comes next.
  template <int kStride, int kColumns>
  static inline __attribute__((always_inline)) void Fetch(const ImageRow<T>& p,
                                                          const Place& place,
                                                          int64_t column,
                                                          int64_t vector) {
    for (int64_t row = 0; row < p.fetch_rows; ++row) {
      const T* from = p.read.data + place.at + p.fetch + row * p.read_y;
#pragma GCC unroll 32
      for (int i = 0; i < kColumns * kStride; ++i) {
        __builtin_prefetch(from);
        Advance(&from, p.read.pitch);
      }
    }
    const T* to = p.to + p.fetch_to + column * p.to_pitch + vector * S::kLanes;
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) {
      __builtin_prefetch(to, 1);
      Advance(&to, p.to_pitch);
    }
  }

  template <int kColumns>
  static inline __attribute__((always_inline)) void Put(const ImageRow<T>& p,
                                                        const Bounds<T>& bounds,
                                                        int64_t column,
                                                        int64_t vector,
                                                        const V* sum) {
    const V bias =
        p.bias == nullptr ? V{} : S::Load(p.bias + vector * S::kLanes);
    T* to = p.to + column * p.to_pitch + vector * S::kLanes;
#pragma GCC unroll 16
    for (int c = 0; c < kColumns; ++c) {
      S::Store(to, Finish<S>(sum[c], bias, bounds));
      Advance(&to, p.to_pitch);
    }
  }

  // Calls body for blocks of columns. The last block may begin within the one
  // before and write the same once more.
  template <typename Body>
  static inline __attribute__((always_inline)) void ForBlocks(
      int64_t columns, const Body& body) {
    for (int64_t column = 0; column < columns;) {
      const int64_t left = columns - column;
      if (left >= kBlock || (left > kSmallBlock && columns >= kBlock)) {
        column = Min(column, columns - kBlock);
        body.template operator()<kBlock>(column);
        column += kBlock;
      } else if (columns >= kSmallBlock) {
        column = Min(column, columns - kSmallBlock);
        body.template operator()<kSmallBlock>(column);
        column += kSmallBlock;
      } else {
        body.template operator()<1>(column);
        ++column;
      }
    }
  }

  // Rows of at most kMostTaps taps.
  template <int kTaps, int kStride>
  struct WholeBlock {
    const ImageRow<T>& p;
    const Bounds<T> bounds;

    template <int kColumns, bool kClip>
    inline __attribute__((always_inline)) void Sum(int64_t column) const {
      for (int64_t vector = 0; vector < p.vectors; ++vector) {
        V sum[kColumns] = {};
        const Place place(p, column, vector, 0);
        if (vector % kVectorsOfLine == 0 && p.fetch_rows > 0) {
          Fetch<kStride, kColumns>(p, place, column, vector);
        }
        Add<kTaps, kStride, kColumns, kClip>(p, place, sum);
        Put<kColumns>(p, bounds, column, vector, sum);
      }
    }

    template <int kColumns>
    inline __attribute__((always_inline)) void operator()(
        int64_t column) const {
      constexpr int kReads = (kColumns - 1) * kStride + kTaps;
      const Place place(p, column, 0, 0);
      if (kColumns == kBlock && place.Has(0) && place.Has(kReads - 1)) {
        Sum<kColumns, false>(column);
      } else {
        Sum<kColumns, true>(column);
      }
    }
  };

  template <int kTaps, int kStride>
  static void Whole(const ImageRow<T>& p) {
    ForBlocks(p.columns,
              WholeBlock<kTaps, kStride>{p, Bounds<T>(p.activation)});
  }

  // Rows of more taps: in pieces of nearly equal length, one after another.
  template <int kStride>
  struct Pieces {
    const ImageRow<T>& p;
    const int64_t pieces;

    explicit Pieces(const ImageRow<T>& p)
        : p(p), pieces((p.taps[2] + kMostTaps - 1) / kMostTaps) {}

    template <int kTaps, int kColumns>
    static void Piece(const ImageRow<T>& p, const Place& place, V* sums) {
      constexpr int kReads = (kColumns - 1) * kStride + kTaps;
      if (kReads <= place.low || place.low + place.span <= 0) return;
      V sum[kColumns];
      for (int c = 0; c < kColumns; ++c) sum[c] = sums[c];
      if (kColumns == kBlock && place.Has(0) && place.Has(kReads - 1)) {
        Add<kTaps, kStride, kColumns, false>(p, place, sum);
      } else {
        Add<kTaps, kStride, kColumns, true>(p, place, sum);
      }
      for (int c = 0; c < kColumns; ++c) sums[c] = sum[c];
    }

    template <int kColumns>
    inline void Sum(int64_t column, int64_t vector, V* sum) const {
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t tap = i * p.taps[2] / pieces;
        const Place place(p, column, vector, tap);
        // Two pieces have four and four taps at least.
        switch ((i + 1) * p.taps[2] / pieces - tap) {
          case 4:
            Piece<4, kColumns>(p, place, sum);
            break;
          case 5:
            Piece<5, kColumns>(p, place, sum);
            break;
          case 6:
            Piece<6, kColumns>(p, place, sum);
            break;
          default:
            Piece<7, kColumns>(p, place, sum);
        }
      }
    }
  };

  // Wider strides: hardly a column that is read meets two outputs.
  struct AnyStride {
    const ImageRow<T>& p;

    explicit AnyStride(const ImageRow<T>& p) : p(p) {}

    template <int kColumns>
    inline void Sum(int64_t column, int64_t vector, V* sum) const {
      const Place place(p, column, vector, 0);
      for (int64_t z = 0; z < p.taps[0]; ++z) {
        for (int64_t y = 0; y < p.taps[1]; ++y) {
          const T* from =
              place.weights + z * p.weights_step[0] + y * p.weights_step[1];
          const T* data = p.read.data;
          const int64_t at = place.at + z * p.read_z + y * p.read_y;
          for (int64_t t = 0; t < p.taps[2]; ++t) {
            const V weight = S::Load(from + t * p.weights_step[2]);
#pragma GCC unroll 16
            for (int c = 0; c < kColumns; ++c) {
              const int64_t i = c * p.stride + t;
              if (!place.Has(i)) continue;
              sum[c] += weight * S::Load(data + at + i * p.read.pitch);
            }
          }
        }
      }
    }
  };

  template <typename Sums>
  struct Block {
    const ImageRow<T>& p;
    const Sums& sums;
    const Bounds<T> bounds;

    template <int kColumns>
    inline void operator()(int64_t column) const {
      for (int64_t vector = 0; vector < p.vectors; ++vector) {
        V sum[kColumns] = {};
        sums.template Sum<kColumns>(column, vector, sum);
        Put<kColumns>(p, bounds, column, vector, sum);
      }
    }
  };

  template <typename Sums>
  static void InBlocks(const ImageRow<T>& p, const Sums& sums) {
    ForBlocks(p.columns, Block<Sums>{p, sums, Bounds<T>(p.activation)});
  }
};

}  // namespace
}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_GENERIC_IMAGE_H_
