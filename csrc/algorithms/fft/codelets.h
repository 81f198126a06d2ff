// Complex transforms of vectors, [point][real, imaginary][lane], written once
// over the vector width.
//
// Stockham's form of decimation in frequency: each pass of radix r reads the
// points p, p + n / r, ... of every transform of n points that is left, and
// writes them where they belong in the end, so that nothing is permuted.

#ifndef KCONV_ALGORITHMS_FFT_CODELETS_H_
#define KCONV_ALGORITHMS_FFT_CODELETS_H_

#include "algorithms/fft/sizes.h"
#include "simd.h"

// Vectors must stay in registers from one step to the next.
#define KCONV_INLINE __attribute__((always_inline)) inline

namespace kconv::fft {
namespace {

template <typename Vector>
struct Complex {
  Vector re, im;
};

template <typename Vector>
KCONV_INLINE Complex<Vector> operator+(Complex<Vector> a, Complex<Vector> b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename Vector>
KCONV_INLINE Complex<Vector> operator-(Complex<Vector> a, Complex<Vector> b) {
  return {a.re - b.re, a.im - b.im};
}
// -i a
template <typename Vector>
KCONV_INLINE Complex<Vector> Turned(Complex<Vector> a) {
  return {a.im, -a.re};
}

template <int kRadix, typename T>
struct Butterfly;

template <typename T>
struct Butterfly<3, T> {
  template <typename C>
  static KCONV_INLINE void Run(C* x) {
    constexpr T kHalf = 0.5, kSine = 0.86602540378443864676;
    const C sum = x[1] + x[2], difference = x[1] - x[2];
    const C a = {x[0].re - kHalf * sum.re, x[0].im - kHalf * sum.im};
    x[0] = x[0] + sum;
    x[1] = {a.re + kSine * difference.im, a.im - kSine * difference.re};
    x[2] = {a.re - kSine * difference.im, a.im + kSine * difference.re};
  }
};

template <typename T>
struct Butterfly<4, T> {
  template <typename C>
  static KCONV_INLINE void Run(C* x) {
    const C a = x[0] + x[2], b = x[0] - x[2];
    const C c = x[1] + x[3], d = Turned(x[1] - x[3]);
    x[0] = a + c;
    x[1] = b + d;
    x[2] = a - c;
    x[3] = b - d;
  }
};

// Of factors without a common divisor, 2 and 3: no twiddles in between.
template <typename T>
struct Butterfly<6, T> {
  template <typename C>
  static KCONV_INLINE void Run(C* x) {
    C even[3] = {x[0], x[2], x[4]}, odd[3] = {x[3], x[5], x[1]};
    Butterfly<3, T>::Run(even);
    Butterfly<3, T>::Run(odd);
    x[0] = even[0] + odd[0];
    x[3] = even[0] - odd[0];
    x[4] = even[1] + odd[1];
    x[1] = even[1] - odd[1];
    x[2] = even[2] + odd[2];
    x[5] = even[2] - odd[2];
  }
};

template <typename T>
struct Butterfly<8, T> {
  template <typename C>
  static KCONV_INLINE void Run(C* x) {
    constexpr T kRoot = 0.70710678118654752440;
    C even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
    Butterfly<4, T>::Run(even);
    Butterfly<4, T>::Run(odd);
    odd[1] = {kRoot * (odd[1].re + odd[1].im), kRoot * (odd[1].im - odd[1].re)};
    odd[2] = Turned(odd[2]);
    odd[3] = {kRoot * (odd[3].im - odd[3].re),
              -kRoot * (odd[3].re + odd[3].im)};
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      x[k] = even[k] + odd[k];
      x[k + 4] = even[k] - odd[k];
    }
  }
};

// One pass over transforms of n points, kStride of them side by side. Where an
// end is swapped real and imaginary parts change places: between two such ends
// the transform is the inverse one.
template <typename T, int kBytes, int kRadix, int kPoints, int kStride,
          bool kSwapIn, bool kSwapOut>
KCONV_INLINE void OnePass(const T* from, T* to, const T* twiddles) {
  using S = Simd<T, kBytes>;
  using C = Complex<typename S::Vector>;
  constexpr int kApart = kPoints / kRadix;
  constexpr int64_t kSize = 2 * S::kLanes;
  for (int p = 0; p < kApart; ++p) {
    const T* w = twiddles + p * (kRadix - 1) * 2;
    for (int q = 0; q < kStride; ++q) {
      const T* at = from + (q + kStride * p) * kSize;
      T* out = to + (q + kStride * kRadix * p) * kSize;
      C x[kRadix];
#pragma GCC unroll 8
      for (int j = 0; j < kRadix; ++j) {
        const T* point = at + kStride * kApart * j * kSize;
        x[j].re = S::Load(point + (kSwapIn ? S::kLanes : 0));
        x[j].im = S::Load(point + (kSwapIn ? 0 : S::kLanes));
      }
      Butterfly<kRadix, T>::Run(x);
#pragma GCC unroll 8
      for (int k = 0; k < kRadix; ++k) {
        C y = x[k];
        if constexpr (kApart > 1) {
          if (k > 0) {
            const T re = w[2 * k - 2], im = w[2 * k - 1];
            y = {x[k].re * re - x[k].im * im, x[k].re * im + x[k].im * re};
          }
        }
        T* point = out + kStride * k * kSize;
        S::Store(point + (kSwapOut ? S::kLanes : 0), y.re);
        S::Store(point + (kSwapOut ? 0 : S::kLanes), y.im);
      }
    }
  }
}

// A transform, from `from` to `to`, which may be the same; `spare` has room for
// twice as much.
template <typename T, int kBytes, int kNumber, bool kInverse>
void Transform(const T* from, T* to, T* spare, const T* twiddles) {
  constexpr int kN = kSizes[kNumber];
  constexpr int64_t kSize = 2 * Simd<T, kBytes>::kLanes;
  if constexpr (kN == 1) {
    for (int64_t i = 0; i < kSize; ++i) to[i] = from[i];
  } else {
    constexpr int r0 = kRadices[kNumber][0], r1 = kRadices[kNumber][1];
    constexpr int r2 = kRadices[kNumber][2];
    constexpr int kTwiddles = (kN / r0) * (r0 - 1) * 2;
    OnePass<T, kBytes, r0, kN, 1, kInverse, false>(from, spare, twiddles);
    if constexpr (r2 == 1) {
      OnePass<T, kBytes, r1, r1, r0, false, kInverse>(spare, to, twiddles);
    } else {
      T* more = spare + kN * kSize;
      OnePass<T, kBytes, r1, r1 * r2, r0, false, false>(spare, more,
                                                        twiddles + kTwiddles);
      OnePass<T, kBytes, r2, r2, r0 * r1, false, kInverse>(more, to, twiddles);
    }
  }
}

template <typename T>
using AnyTransform = void (*)(const T*, T*, T*, const T*);

template <typename T, int kBytes, bool kInverse>
KCONV_INLINE AnyTransform<T> TransformOf(int number) {
  static constexpr AnyTransform<T> kAll[kSizeCount] = {
      Transform<T, kBytes, 0, kInverse>, Transform<T, kBytes, 1, kInverse>,
      Transform<T, kBytes, 2, kInverse>, Transform<T, kBytes, 3, kInverse>,
      Transform<T, kBytes, 4, kInverse>, Transform<T, kBytes, 5, kInverse>,
      Transform<T, kBytes, 6, kInverse>, Transform<T, kBytes, 7, kInverse>};
  return kAll[number];
}

}  // namespace
}  // namespace kconv::fft

#undef KCONV_INLINE

#endif  // KCONV_ALGORITHMS_FFT_CODELETS_H_
