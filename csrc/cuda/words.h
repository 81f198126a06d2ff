// Elements of a type that is known when the program runs: loaded as bits, so
// that a thread can go on while they are on their way, and widened later.

#ifndef KCONV_CUDA_WORDS_H_
#define KCONV_CUDA_WORDS_H_

#include <cstdint>

#include "conv.h"
#include "cuda/host_device.h"
#include "half.h"

namespace kconv::cuda {

// float32, float16 or bfloat16.
struct Type {
  DType dtype = DType::kFloat32;
  bool half = false;  // 2 bytes

  Type() = default;
  explicit Type(DType type)
      : dtype(type),
        half(type == DType::kFloat16 || type == DType::kBFloat16) {}
};

KCONV_HOST_DEVICE inline float WidenBits(uint32_t bits, DType dtype) {
  if (dtype == DType::kFloat16) {
    return Widen(Float16{static_cast<uint16_t>(bits)});
  }
  if (dtype == DType::kBFloat16) {
    return Widen(BFloat16{static_cast<uint16_t>(bits)});
  }
  return half_internal::AsFloat(bits);
}

KCONV_HOST_DEVICE inline uint32_t NarrowBits(float value, DType dtype) {
  if (dtype == DType::kFloat16) {
    Float16 narrow;
    Narrow(value, &narrow);
    return narrow.bits;
  }
  if (dtype == DType::kBFloat16) {
    BFloat16 narrow;
    Narrow(value, &narrow);
    return narrow.bits;
  }
  return half_internal::AsBits(value);
}

KCONV_HOST_DEVICE inline uint32_t LoadBits(const void* from, int64_t at,
                                           bool half) {
  return half ? static_cast<const uint16_t*>(from)[at]
              : static_cast<const uint32_t*>(from)[at];
}

KCONV_HOST_DEVICE inline void StoreBits(void* to, int64_t at, bool half,
                                        uint32_t bits) {
  if (half) {
    static_cast<uint16_t*>(to)[at] = static_cast<uint16_t>(bits);
  } else {
    static_cast<uint32_t*>(to)[at] = bits;
  }
}

// Four elements: side by side in two words, or one in each word.
struct alignas(16) Quad {
  uint32_t word[4];
};
struct alignas(8) HalfQuad {
  uint32_t word[2];
};

// Elements at, ..., at + 3, a multiple of 4 from an aligned address on.
KCONV_HOST_DEVICE inline void LoadQuad(const void* from, int64_t at, bool half,
                                       Quad* quad) {
  if (half) {
    const auto bits = *reinterpret_cast<const HalfQuad*>(
        static_cast<const uint16_t*>(from) + at);
    quad->word[0] = bits.word[0];
    quad->word[1] = bits.word[1];
  } else {
    *quad =
        *reinterpret_cast<const Quad*>(static_cast<const uint32_t*>(from) + at);
  }
}

// Element i of a quad that LoadQuad loaded.
KCONV_HOST_DEVICE inline float WidenOf(const Quad& quad, int i, Type type) {
  return type.half ? WidenBits(quad.word[i / 2] >> (16 * (i % 2)) & 0xffff,
                               type.dtype)
                   : half_internal::AsFloat(quad.word[i]);
}

KCONV_HOST_DEVICE inline void StoreQuad(void* to, int64_t at, Type type,
                                        const float* value) {
  if (type.half) {
    HalfQuad bits;
    bits.word[0] = NarrowBits(value[0], type.dtype) |
                   NarrowBits(value[1], type.dtype) << 16;
    bits.word[1] = NarrowBits(value[2], type.dtype) |
                   NarrowBits(value[3], type.dtype) << 16;
    *reinterpret_cast<HalfQuad*>(static_cast<uint16_t*>(to) + at) = bits;
  } else {
    Quad bits;
    KCONV_UNROLL
    for (int i = 0; i < 4; ++i) bits.word[i] = NarrowBits(value[i], type.dtype);
    *reinterpret_cast<Quad*>(static_cast<uint32_t*>(to) + at) = bits;
  }
}

// Whether an address is that of quads of elements of a type.
inline bool HoldsQuads(const void* address, Type type) {
  return reinterpret_cast<uintptr_t>(address) % (type.half ? 8 : 16) == 0;
}

}  // namespace kconv::cuda

#endif  // KCONV_CUDA_WORDS_H_
