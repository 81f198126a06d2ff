// float16 and bfloat16 to and from the types that sums are kept in.
//
// Static functions, so that files compiled for an instruction set may use them.

#ifndef KCONV_HALF_H_
#define KCONV_HALF_H_

#include <stdint.h>

#include "cuda/host_device.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace kconv {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

namespace half_internal {

KCONV_HOST_DEVICE static inline float AsFloat(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

KCONV_HOST_DEVICE static inline uint32_t AsBits(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

}  // namespace half_internal

// The same number in the type that sums are kept in, exactly.
KCONV_HOST_DEVICE static inline float Widen(float x) { return x; }
KCONV_HOST_DEVICE static inline double Widen(double x) { return x; }

KCONV_HOST_DEVICE static inline float Widen(BFloat16 x) {
  return half_internal::AsFloat(static_cast<uint32_t>(x.bits) << 16);
}

KCONV_HOST_DEVICE static inline float Widen(Float16 x) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#elif defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  using half_internal::AsBits;
  using half_internal::AsFloat;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  if (magnitude < 0x00800000) {
    // Subnormal or zero: the low end of 0.5 + x. No subnormal float is met on
    // the way, which TensorFlow's threads take for zero.
    const float value = AsFloat(AsBits(0.5f) + (magnitude >> 13)) - 0.5f;
    return AsFloat(sign | AsBits(value));
  }
  // The exponent moves from bias 15 to 127; that of infinities and NaN is full.
  const uint32_t infinite = magnitude >= 0x0f800000 ? 0x7f800000 : 0;
  return AsFloat(sign | (magnitude + ((127 - 15) << 23)) | infinite);
#endif
}

// Rounds to nearest, ties to even.
KCONV_HOST_DEVICE static inline void Narrow(float x, float* to) { *to = x; }
KCONV_HOST_DEVICE static inline void Narrow(double x, double* to) { *to = x; }

KCONV_HOST_DEVICE static inline void Narrow(float x, BFloat16* to) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
#else
  const uint32_t bits = half_internal::AsBits(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : rounded);
#endif
}

KCONV_HOST_DEVICE static inline void Narrow(float x, Float16* to) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
#elif defined(__F16C__)
  to->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
  using half_internal::AsBits;
  using half_internal::AsFloat;
  const uint32_t bits = AsBits(x);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t result;
  if (magnitude > 0x7f800000) {
    result = 0x7e00;  // NaN
  } else if (magnitude >= 0x477ff000) {
    result = 0x7c00;  // rounds past the largest number, 65504
  } else if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 leaves the rounded bits at the low end.
    result = AsBits(AsFloat(magnitude) + 0.5f) - AsBits(0.5f);
  } else {
    const uint32_t odd = (magnitude >> 13) & 1;
    result = (magnitude - ((127 - 15) << 23) + 0xfff + odd) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | result);
#endif
}

// Rows of them that lie side by side.
template <typename Element, typename Sum>
static inline void WidenRow(const Element* from, Sum* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = Widen(from[i]);
}
template <typename Element, typename Sum>
static inline void NarrowRow(const Sum* from, Element* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) Narrow(from[i], to + i);
}

#ifdef __F16C__
static inline void WidenRow(const Float16* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(halves));
  }
  for (; i < count; ++i) to[i] = Widen(from[i]);
}
static inline void NarrowRow(const float* from, Float16* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves =
        _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), halves);
  }
  for (; i < count; ++i) Narrow(from[i], to + i);
}
#endif

// The type that sums of an element type are kept in.
template <typename Element>
struct SumTypeOf {
  using Type = float;
};
template <>
struct SumTypeOf<double> {
  using Type = double;
};
template <typename Element>
using SumType = typename SumTypeOf<Element>::Type;

}  // namespace kconv

#endif  // KCONV_HALF_H_
