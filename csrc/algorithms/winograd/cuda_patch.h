// Tiles in the registers of a thread: of one channel, and their transforms.

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_PATCH_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_PATCH_H_

#include <cstdint>

#include "algorithms/winograd/cuda_plan.h"
#include "algorithms/winograd/linear.h"
#include "cuda/finish.h"
#include "cuda/host_device.h"
#include "half.h"

namespace kconv::winograd {

// kSize x kSize pixels of a channel, and which of them there are.
template <typename Element, int kSize>
struct CudaPatch {
  const Element* first = nullptr;  // pixel, which there may not be
  uint32_t bits = 0;               // of rows, then of columns

  CudaPatch() = default;
  KCONV_HOST_DEVICE CudaPatch(const Element* channel, const CudaImage& image,
                              int64_t number, int y, int x)
      : first(channel + number * image.image + int64_t{y} * image.row +
              int64_t{x} * image.pixel),
        bits(Within(y, image.height) | Within(x, image.width) << kSize) {}

  // Zeros where there is no pixel, or where nothing `exists`.
  KCONV_HOST_DEVICE void Load(const CudaImage& image, bool exists,
                              Element (&to)[kSize][kSize]) const {
    // In bytes: a GPU adds these, but would multiply elements one by one.
    constexpr uint32_t kBytes = sizeof(Element);
    const char* from = reinterpret_cast<const char*>(first);
    const uint32_t row = static_cast<uint32_t>(image.row) * kBytes;
    const uint32_t pixel = static_cast<uint32_t>(image.pixel) * kBytes;
    KCONV_UNROLL
    for (int i = 0; i < kSize; ++i) {
      const uint32_t of_row = exists && (bits >> i & 1) != 0 ? bits : 0;
      KCONV_UNROLL
      for (int j = 0; j < kSize; ++j) {
        to[i][j] = (of_row >> (kSize + j) & 1) != 0
                       ? *reinterpret_cast<const Element*>(
                             from + (static_cast<uint32_t>(i) * row +
                                     static_cast<uint32_t>(j) * pixel))
                       : Element{};
      }
    }
  }

 private:
  KCONV_HOST_DEVICE static uint32_t Within(int at, int size) {
    uint32_t bits = 0;
    KCONV_UNROLL
    for (int i = 0; i < kSize; ++i) {
      bits |= static_cast<uint32_t>(at + i >= 0 && at + i < size) << i;
    }
    return bits;
  }
};

// Calls store(plane, value) for each element of Matrix x Matrix^T.
template <typename Matrix, typename Element, typename Store>
KCONV_HOST_DEVICE KCONV_INLINE void CudaTransform(
    const Element (&x)[Matrix::kColumns][Matrix::kColumns],
    const Store& store) {
  constexpr int kIn = Matrix::kColumns, kOut = Matrix::kRows;
  float between[kIn][kOut];
  KCONV_UNROLL
  for (int j = 0; j < kIn; ++j) {
    float column[kIn];
    KCONV_UNROLL
    for (int i = 0; i < kIn; ++i) column[i] = Widen(x[i][j]);
    Apply<Matrix>(column, between[j]);
  }
  KCONV_UNROLL
  for (int i = 0; i < kOut; ++i) {
    float row[kIn], result[kOut];
    KCONV_UNROLL
    for (int j = 0; j < kIn; ++j) row[j] = between[j][i];
    Apply<Matrix>(row, result);
    KCONV_UNROLL
    for (int j = 0; j < kOut; ++j) store(i * kOut + j, result[j]);
  }
}

// Elements that are stored by one instruction.
template <typename Element, int kCount>
struct alignas(sizeof(Element) * kCount) CudaRun {
  Element element[kCount];
};

// Where results go, and what becomes of them before.
template <typename Element>
struct CudaWriting {
  Element* to;
  const Element* bias;  // or null
  Activation activation;
  CudaImage image;
  int run;  // pixels that can be stored at a time: 1, 2 or 4

  // As many as lie side by side, aligned, from any tile on.
  int RunOf(int outputs) const {
    int found = image.pixel == 1 ? outputs : 1;
    while (found > 1 &&
           (image.width % found != 0 ||
            reinterpret_cast<uintptr_t>(to) % (found * sizeof(Element)) != 0)) {
      found /= 2;
    }
    return found;
  }

  // A^T m A of a tile, of a channel of all groups.
  template <typename Matrix>
  KCONV_HOST_DEVICE void Write(
      const float (&m)[Matrix::kColumns][Matrix::kColumns],
      const CudaTiling::Place& place, int64_t channel) const {
    constexpr int kOutputs = Matrix::kRows;
    const int y = place.row * kOutputs, x = place.column * kOutputs;
    const float shift = bias == nullptr ? 0.0f : Widen(bias[channel]);
    Element result[kOutputs][kOutputs];
    CudaTransform<Matrix>(m, [&](int at, float value) {
      Narrow(cuda::Activate(value + shift, activation),
             &result[at / kOutputs][at % kOutputs]);
    });
    Element* first = to + place.image * image.image + int64_t{y} * image.row +
                     int64_t{x} * image.pixel + channel * image.channel;
    KCONV_UNROLL
    for (int i = 0; i < kOutputs; ++i) {
      if (y + i >= image.height) break;
      Element* row = first + i * image.row;
      if (kOutputs == 4 && run == 4) {
        StoreRuns<4>(result[i], x, row);
      } else if (run == 2) {
        StoreRuns<2>(result[i], x, row);
      } else {
        StoreRuns<1>(result[i], x, row);
      }
    }
  }

 private:
  template <int kRun, int kOutputs>
  KCONV_HOST_DEVICE void StoreRuns(const Element (&from)[kOutputs], int x,
                                   Element* row) const {
    KCONV_UNROLL
    for (int j = 0; j + kRun <= kOutputs; j += kRun) {
      if (x + j >= image.width) continue;
      CudaRun<Element, kRun> pack;
      KCONV_UNROLL
      for (int l = 0; l < kRun; ++l) pack.element[l] = from[j + l];
      *reinterpret_cast<CudaRun<Element, kRun>*>(row + j * image.pixel) = pack;
    }
  }
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_PATCH_H_
