// Between filters and their frequencies, on the GPU.

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_FILTER_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_FILTER_H_

#include <cstdint>

#include "algorithms/winograd/cuda_patch.h"
#include "algorithms/winograd/cuda_plan.h"
#include "cuda/phases.h"
#include "half.h"

namespace kconv::winograd {

// U = G g G^T of every channel and result, zeros for those that `planes` has
// beside them. A block takes 32 x 32 of them; by way of shared memory, so that
// the filter is read as it lies, turned or not.
template <typename Matrix, typename Element, typename Planes>
struct CudaFilterTransform {
  using State = cuda::NoState;
  static constexpr int kMostThreads = 256;
  static constexpr int kSide = 32, kRow = kSide + 1;
  static constexpr int kAll = kCudaTaps * kCudaTaps;

  CudaPass pass;
  Planes planes;
  const Element* filter;
  float* to;

  cuda::Launch Launch() const {
    return {pass.groups * BlocksDown() * BlocksAcross(), kMostThreads,
            kAll * kSide * kRow * 4};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 2; }

  KCONV_HOST_DEVICE void Step(int64_t step, const cuda::Thread& thread,
                              void* shared, State*) const {
    const int64_t result = thread.block % BlocksAcross() * kSide;
    const int64_t rest = thread.block / BlocksAcross();
    const int64_t channel = rest % BlocksDown() * kSide;
    const int64_t group = rest / BlocksDown();
    float* taps = static_cast<float*>(shared);  // [tap][channel][result]
    const int lane = thread.index % kSide;
    for (int line = thread.index / kSide; line < kSide;
         line += kMostThreads / kSide) {
      if (step == 1) {
        Write(group, channel + line, result + lane, taps + line * kRow + lane);
      } else if (pass.gradient) {
        Load(group, channel + lane, result + line, taps + lane * kRow + line);
      } else {
        Load(group, channel + line, result + lane, taps + line * kRow + lane);
      }
    }
  }

 private:
  KCONV_HOST_DEVICE int64_t BlocksDown() const {
    return (planes.rows + kSide - 1) / kSide;
  }
  KCONV_HOST_DEVICE int64_t BlocksAcross() const {
    return (planes.Columns() + kSide - 1) / kSide;
  }

  KCONV_HOST_DEVICE void Load(int64_t group, int64_t channel, int64_t result,
                              float* taps) const {
    const bool exists = channel < pass.channels && result < pass.results;
    KCONV_UNROLL
    for (int tap = 0; tap < kAll; ++tap) {
      // [tap][input channels of a group][output channels of all groups]
      const int64_t at =
          pass.gradient
              ? ((kAll - 1 - tap) * pass.results + result) * pass.groups *
                        pass.channels +
                    group * pass.channels + channel
              : (tap * pass.channels + channel) * pass.groups * pass.results +
                    group * pass.results + result;
      taps[tap * kSide * kRow] = exists ? Widen(filter[at]) : 0.0f;
    }
  }

  KCONV_HOST_DEVICE void Write(int64_t group, int64_t channel, int64_t result,
                               const float* taps) const {
    if (channel >= planes.rows || result >= planes.Columns()) return;
    float x[kCudaTaps][kCudaTaps];
    KCONV_UNROLL
    for (int tap = 0; tap < kAll; ++tap) {
      x[tap / kCudaTaps][tap % kCudaTaps] = taps[tap * kSide * kRow];
    }
    float* place = to + planes.At(group, channel, result);
    CudaTransform<Matrix>(x, [&](int plane, float value) {
      place[plane * planes.plane] = value;
    });
  }
};

// The filter gradient, from the sum over all tiles.
template <typename Matrix, typename Element>
struct CudaFilterResult {
  using State = cuda::NoState;
  static constexpr int kMostThreads = 128;

  CudaPass pass;
  CudaPlanes planes;
  const float* from;
  Element* filter;

  cuda::Launch Launch() const {
    return {
        CeilDivide(pass.groups * pass.channels * pass.results, kMostThreads),
        kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    constexpr int kPoints = Matrix::kColumns;
    const int64_t item = thread.block * thread.count + thread.index;
    const int64_t result = item % pass.results;
    const int64_t channel = item / pass.results % pass.channels;
    const int64_t group = item / pass.results / pass.channels;
    if (group >= pass.groups) return;
    const float* place =
        from + group * planes.group + channel * planes.row + result;
    float x[kPoints][kPoints];
    KCONV_UNROLL
    for (int plane = 0; plane < kPoints * kPoints; ++plane) {
      x[plane / kPoints][plane % kPoints] = place[plane * planes.plane];
    }
    CudaTransform<Matrix>(x, [&](int tap, float value) {
      Narrow(value,
             filter +
                 (tap * pass.channels + channel) * pass.groups * pass.results +
                 group * pass.results + result);
    });
  }
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_FILTER_H_
