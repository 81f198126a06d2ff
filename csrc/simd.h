// Vectors of any width, from the compiler's own vector types.
//
// For files compiled for an instruction set only (isa/*.cc and the generic.h
// that they include). Everything here has internal linkage: a function that the
// linker could merge might reach the baseline in its AVX-512 form.

#ifndef KCONV_SIMD_H_
#define KCONV_SIMD_H_

#include <stdint.h>

// Four elements of two vectors of four. GCC had a builtin of its own before it
// took up Clang's.
#if defined(__clang__) || __GNUC__ >= 12
#define KCONV_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define KCONV_SHUFFLE(a, b, ...) \
  __builtin_shuffle(a, b, typename S::Index{__VA_ARGS__})
#endif

namespace kconv {
namespace {

// An integer as wide as T, which shuffles of it are indexed by.
template <int kBytes>
struct IntegerOf {
  typedef int32_t Type;
};
template <>
struct IntegerOf<8> {
  typedef int64_t Type;
};

template <typename T, int kBytes>
struct Simd {
  typedef T Vector __attribute__((vector_size(kBytes)));
  typedef typename IntegerOf<sizeof(T)>::Type Index
      __attribute__((vector_size(kBytes)));
  static constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));

  static inline Vector Load(const T* from) {
    Vector v;
    __builtin_memcpy(&v, from, kBytes);
    return v;
  }

  static inline void Store(T* to, Vector v) {
    __builtin_memcpy(to, &v, kBytes);
  }

  static inline Vector Broadcast(T x) { return x - Vector{}; }
};

// to[j * to_stride + i] = from[i * from_stride + j] for i, j < 4.
template <typename T>
inline void Transpose4x4(const T* from, int64_t from_stride, T* to,
                         int64_t to_stride) {
  using S = Simd<T, 4 * sizeof(T)>;
  const auto r0 = S::Load(from), r1 = S::Load(from + from_stride);
  const auto r2 = S::Load(from + 2 * from_stride);
  const auto r3 = S::Load(from + 3 * from_stride);
  const auto a = KCONV_SHUFFLE(r0, r1, 0, 4, 1, 5);
  const auto b = KCONV_SHUFFLE(r0, r1, 2, 6, 3, 7);
  const auto c = KCONV_SHUFFLE(r2, r3, 0, 4, 1, 5);
  const auto d = KCONV_SHUFFLE(r2, r3, 2, 6, 3, 7);
  S::Store(to, KCONV_SHUFFLE(a, c, 0, 1, 4, 5));
  S::Store(to + to_stride, KCONV_SHUFFLE(a, c, 2, 3, 6, 7));
  S::Store(to + 2 * to_stride, KCONV_SHUFFLE(b, d, 0, 1, 4, 5));
  S::Store(to + 3 * to_stride, KCONV_SHUFFLE(b, d, 2, 3, 6, 7));
}

// Moves a pointer or a number on, and hides from the compiler by how much: in
// an unrolled loop it would keep each multiple of `step` in a register, and
// where it has none left read them from the stack again and again.
template <typename At>
inline void Advance(At* at, int64_t step) {
  *at += step;
  __asm__("" : "+r"(*at));
}

inline int64_t Min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace
}  // namespace kconv

#endif  // KCONV_SIMD_H_
