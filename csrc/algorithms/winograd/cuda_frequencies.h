// Between images and their frequencies in device memory, on the GPU.

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_FREQUENCIES_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_FREQUENCIES_H_

#include <cstdint>

#include "algorithms/winograd/cuda_patch.h"
#include "algorithms/winograd/cuda_plan.h"
#include "cuda/phases.h"

namespace kconv::winograd {

// The frequencies of some tiles of an image, [tile][channel] (`along_channels`)
// or [channel][tile]. A block takes 32 tiles and 8 channels, a thread one of
// both: side by side as they lie in the image, and where they lie otherwise in
// the frequencies, these go by way of shared memory.
template <typename Matrix, typename Element>
struct CudaTileTransform {
  using State = cuda::NoState;
  static constexpr int kMostThreads = 256;
  static constexpr int kTiles = 32, kChannels = 8;
  // Neither lanes along tiles nor along channels meet a bank twice.
  static constexpr int kRow = kTiles + 4, kPlane = kChannels * kRow;
  static constexpr int kSize = Matrix::kColumns;
  static constexpr int kPlanes = Matrix::kRows * Matrix::kRows;

  const Element* from;
  CudaImage image;
  CudaTiling tiling;
  int64_t first, tiles;  // of the slice
  int64_t groups, channels;
  int outputs;       // pixels from tile to tile
  int pad_y, pad_x;  // from the first tile to the first pixel
  bool along_channels;
  CudaPlanes planes;
  float* to;

  cuda::Launch Launch() const {
    return {groups * Chunks() * CeilDivide(tiles, kTiles), kMostThreads,
            Direct() ? 0 : kPlanes * kPlane * 4};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return Direct() ? 1 : 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    const bool last = step == 0 ? Last() : along_channels;
    const int channel = last ? thread.index % kChannels : thread.index / kTiles;
    const int tile = last ? thread.index / kChannels : thread.index % kTiles;
    float* waiting = static_cast<float*>(shared) + channel * kRow + tile;
    const int64_t chunk = thread.block % Chunks() * kChannels;
    const int64_t rest = thread.block / Chunks();
    const int64_t group = rest % groups;
    const int64_t number = rest / groups * kTiles + tile;
    if (number >= tiles || chunk + channel >= channels) return;
    float* place = to + group * planes.group;
    place += along_channels ? number * planes.row + chunk + channel
                            : (chunk + channel) * planes.row + number;
    if (step == 1) {
      KCONV_UNROLL
      for (int plane = 0; plane < kPlanes; ++plane) {
        place[plane * planes.plane] = waiting[plane * kPlane];
      }
      return;
    }
    const CudaTiling::Place at = tiling.At(first + number);
    const CudaPatch<Element, kSize> patch(
        from + (group * channels + chunk + channel) * image.channel, image,
        at.image, at.row * outputs - pad_y, at.column * outputs - pad_x);
    Element x[kSize][kSize];
    patch.Load(image, true, x);
    if (Direct()) {
      CudaTransform<Matrix>(x, [&](int plane, float value) {
        place[plane * planes.plane] = value;
      });
    } else {
      CudaTransform<Matrix>(
          x, [&](int plane, float value) { waiting[plane * kPlane] = value; });
    }
  }

 private:
  KCONV_HOST_DEVICE bool Last() const { return image.last; }
  KCONV_HOST_DEVICE bool Direct() const { return Last() == along_channels; }
  KCONV_HOST_DEVICE int64_t Chunks() const {
    return (channels + kChannels - 1) / kChannels;
  }
};

// The results of some tiles from M, which is [tile][result] where channels come
// last in the image, or else [result][tile].
template <typename Matrix, typename Element>
struct CudaResultTransform {
  using State = cuda::NoState;
  static constexpr int kMostThreads = 256;

  const float* from;
  CudaPlanes planes;
  CudaTiling tiling;
  int64_t first, tiles;
  int64_t groups, results;
  CudaWriting<Element> writing;

  cuda::Launch Launch() const {
    return {groups * CeilDivide(results, ResultsOfBlock()) *
                CeilDivide(tiles, kMostThreads / ResultsOfBlock()),
            kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    constexpr int kPoints = Matrix::kColumns;
    const int of_block = ResultsOfBlock();
    const int64_t chunks = (results + of_block - 1) / of_block;
    const int64_t rest = thread.block / chunks;
    const int64_t group = rest % groups;
    const int side = thread.index % 32, line = thread.index / 32;
    const int64_t result =
        thread.block % chunks * of_block + (Last() ? side : line);
    const int64_t tile =
        rest / groups * (kMostThreads / of_block) + (Last() ? line : side);
    if (tile >= tiles || result >= results) return;
    const float* place =
        from + group * planes.group +
        (Last() ? tile * planes.row + result : result * planes.row + tile);
    float m[kPoints][kPoints];
    KCONV_UNROLL
    for (int plane = 0; plane < kPoints * kPoints; ++plane) {
      m[plane / kPoints][plane % kPoints] = place[plane * planes.plane];
    }
    writing.template Write<Matrix>(m, tiling.At(first + tile),
                                   group * results + result);
  }

 private:
  KCONV_HOST_DEVICE bool Last() const { return writing.image.last; }
  KCONV_HOST_DEVICE int ResultsOfBlock() const { return Last() ? 32 : 8; }
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_FREQUENCIES_H_
