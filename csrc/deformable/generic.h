// The kernels, written once over the vector width; isa/*.cc instantiate them.

#ifndef KCONV_DEFORMABLE_GENERIC_H_
#define KCONV_DEFORMABLE_GENERIC_H_

#include "deformable/kernels.h"
#include "simd.h"

namespace kconv::deformable {
namespace {

// Channels that are handled at a time; what lies outside is read from as many
// zeros, and written to a row of as many that nobody reads.
constexpr int64_t kMostChannels = 256;

template <typename Element>
alignas(64) constexpr Element kZeros[kMostChannels] = {};

// A vector of elements, as sums.
template <typename S, typename T>
inline typename S::Vector LoadSums(const T* from) {
  if constexpr (sizeof(typename S::Vector) == S::kLanes * sizeof(T)) {
    return S::Load(from);
  } else {
    SumType<T> wide[S::kLanes];
    WidenRow(from, wide, S::kLanes);
    return S::Load(wide);
  }
}

template <typename Element>
void LocateBlock(const Window& w, const Points& points, const Element* offsets,
                 const Element* mask, Sample<SumType<Element>>* samples) {
  using Sum = SumType<Element>;
  const int64_t height = w.input[0], width = w.input[1];
  const int64_t taps = w.kernel[0] * w.kernel[1];
  const int64_t of_pixel = w.offset_groups * taps;
  const int64_t row = points.first_pixel / w.output[1];
  int64_t x = points.first_pixel % w.output[1];
  int64_t y = row % w.output[0];
  int64_t image = row / w.output[0];
  for (int64_t i = 0; i < points.pixels; ++i) {
    const int64_t y0 = y * w.stride[0] - w.pad[0];
    const int64_t x0 = x * w.stride[1] - w.pad[1];
    const int64_t pixel = (points.first_pixel + i) * of_pixel;
    for (int64_t g = 0; g < points.groups; ++g) {
      const int64_t from =
          pixel + (points.first_group + g) * taps + points.first_tap;
      int64_t tap_y = points.first_tap / w.kernel[1];
      int64_t tap_x = points.first_tap % w.kernel[1];
      for (int64_t t = from; t < from + points.taps; ++t) {
        const Sum at_y = static_cast<Sum>(y0 + tap_y * w.dilation[0]);
        const Sum at_x = static_cast<Sum>(x0 + tap_x * w.dilation[1]);
        *samples++ = Locate<Sum>(at_y + Widen(offsets[2 * t]),
                                 at_x + Widen(offsets[2 * t + 1]),
                                 mask == nullptr ? Sum(1) : Widen(mask[t]),
                                 height, width, image * height * width);
        if (++tap_x == w.kernel[1]) {
          tap_x = 0;
          ++tap_y;
        }
      }
    }
    if (++x == w.output[1]) {
      x = 0;
      if (++y == w.output[0]) {
        y = 0;
        ++image;
      }
    }
  }
}

// Calls body(tap, channel, offset group, count, column - begin) for the runs of
// columns that read one pixel side by side.
template <typename Body>
inline void ForEachRun(const Window& w, const Columns& columns,
                       const Body& body) {
  int64_t tap = columns.begin / columns.count;
  int64_t c = columns.begin % columns.count;
  const int64_t first_group = columns.first / w.offset_group_channels;
  int64_t group = (columns.first + c) / w.offset_group_channels;
  for (int64_t k = columns.begin; k < columns.end;) {
    const int64_t channel = columns.first + c;
    const int64_t group_end = (group + 1) * w.offset_group_channels;
    const int64_t run = Min(Min(columns.end - k, columns.count - c),
                            Min(group_end - channel, kMostChannels));
    body(tap, channel, group, run, k - columns.begin);
    k += run;
    c += run;
    if (c == columns.count) {
      c = 0;
      ++tap;
      group = first_group;
    } else if (channel + run == group_end) {
      ++group;
    }
  }
}

template <typename S, typename Element>
inline void GatherRun(const Element* const* corner,
                      const SumType<Element>* weight, SumType<Element> mask,
                      int64_t count, SumType<Element>* to) {
  const auto w0 = S::Broadcast(weight[0]), w1 = S::Broadcast(weight[1]);
  const auto w2 = S::Broadcast(weight[2]), w3 = S::Broadcast(weight[3]);
  const auto m = S::Broadcast(mask);
  int64_t j = 0;
  for (; j + S::kLanes <= count; j += S::kLanes) {
    const auto upper =
        w0 * LoadSums<S>(corner[0] + j) + w1 * LoadSums<S>(corner[1] + j);
    const auto lower =
        w2 * LoadSums<S>(corner[2] + j) + w3 * LoadSums<S>(corner[3] + j);
    S::Store(to + j, m * (upper + lower));
  }
  for (; j < count; ++j) {
    const auto upper =
        weight[0] * Widen(corner[0][j]) + weight[1] * Widen(corner[1][j]);
    const auto lower =
        weight[2] * Widen(corner[2][j]) + weight[3] * Widen(corner[3][j]);
    to[j] = mask * (upper + lower);
  }
}

template <typename Element, int kBytes>
void GatherBlock(const Window& w, const Points& points, const Columns& columns,
                 const Element* input, const Sample<SumType<Element>>* samples,
                 SumType<Element>* to, int64_t stride) {
  using Sum = SumType<Element>;
  for (int64_t i = 0; i < points.pixels; ++i, to += stride) {
    ForEachRun(w, columns,
               [&](int64_t tap, int64_t channel, int64_t group, int64_t count,
                   int64_t column) {
                 const Sample<Sum>& s = samples[points.Index(i, group, tap)];
                 Sum weight[kCorners];
                 CornerWeights(s, weight);
                 const Element* corner[kCorners];
                 for (int k = 0; k < kCorners; ++k) {
                   corner[k] =
                       IsRead(s, weight, k)
                           ? input +
                                 CornerPixel(s.at, k, w.input[1]) * w.channels +
                                 channel
                           : kZeros<Element>;
                 }
                 GatherRun<Simd<Sum, kBytes>>(corner, weight, s.mask, count,
                                              to + column);
               });
  }
}

// sum[k] += the sum of the elements of v[k].
template <typename S, typename T>
inline void AddAcross(const typename S::Vector* v, T* sum) {
  using Four = Simd<T, 4 * sizeof(T)>;
  T rows[kCorners * 4];
  for (int k = 0; k < kCorners; ++k) {
    T lanes[S::kLanes];
    S::Store(lanes, v[k]);
    if constexpr (S::kLanes >= 4) {
      auto four = Four::Load(lanes);
      for (int l = 4; l < S::kLanes; l += 4) four += Four::Load(lanes + l);
      Four::Store(rows + 4 * k, four);
    } else {
      for (int l = 0; l < 4; ++l) {
        rows[4 * k + l] = l < S::kLanes ? lanes[l] : T(0);
      }
    }
  }
  T turned[kCorners * 4];
  Transpose4x4(rows, 4, turned, 4);
  const auto low = Four::Load(turned) + Four::Load(turned + 4);
  const auto high = Four::Load(turned + 8) + Four::Load(turned + 12);
  Four::Store(sum, Four::Load(sum) + (low + high));
}

// Of a run: to[k] += weight[k] * mask * from, and dot[k] += the sum of
// corner[k]
// * from.
template <typename S, typename Element>
inline void ScatterRun(const Element* const* corner,
                       const SumType<Element>* weight, SumType<Element> mask,
                       const SumType<Element>* from, int64_t count,
                       SumType<Element>* const* to, SumType<Element>* dot) {
  using Sum = SumType<Element>;
  typename S::Vector sum[kCorners] = {}, w[kCorners];
  for (int k = 0; k < kCorners; ++k) w[k] = S::Broadcast(weight[k]);
  const auto m = S::Broadcast(mask);
  int64_t j = 0;
  for (; j + S::kLanes <= count; j += S::kLanes) {
    const auto g = S::Load(from + j);
    const auto masked = m * g;
    for (int k = 0; k < kCorners; ++k) {
      sum[k] += g * LoadSums<S>(corner[k] + j);
      S::Store(to[k] + j, S::Load(to[k] + j) + w[k] * masked);
    }
  }
  if (j > 0) AddAcross<S>(sum, dot);
  for (; j < count; ++j) {
    const Sum masked = mask * from[j];
    for (int k = 0; k < kCorners; ++k) {
      dot[k] += from[j] * Widen(corner[k][j]);
      to[k][j] += weight[k] * masked;
    }
  }
}

template <typename Element, int kBytes>
void ScatterBlock(const Window& w, const Points& points, const Columns& columns,
                  const Element* input, const Sample<SumType<Element>>* samples,
                  const SumType<Element>* from, int64_t stride,
                  const Plane<SumType<Element>>& plane,
                  SumType<Element>* gradients) {
  using Sum = SumType<Element>;
  Sum unread[kMostChannels] = {};
  for (int64_t i = 0; i < points.pixels; ++i, from += stride) {
    ForEachRun(
        w, columns,
        [&](int64_t tap, int64_t channel, int64_t group, int64_t count,
            int64_t column) {
          const int64_t index = points.Index(i, group, tap);
          const Sample<Sum>& s = samples[index];
          Sum* gradient = gradients + 3 * index;
          if (s.inside == 0) {
            // NaN, or nothing.
            if (IsNan(s)) gradient[0] = gradient[1] = gradient[2] = s.y;
            return;
          }
          Sum weight[kCorners];
          CornerWeights(s, weight);
          const Element* corner[kCorners];
          Sum* to[kCorners];
          for (int k = 0; k < kCorners; ++k) {
            const int64_t pixel = CornerPixel(s.at, k, w.input[1]);
            corner[k] = s.inside >> k & 1 ? input + pixel * w.channels + channel
                                          : kZeros<Element>;
            to[k] = IsRead(s, weight, k)
                        ? plane.data +
                              (pixel - plane.first_pixel) * plane.stride +
                              (channel - plane.first_channel)
                        : unread;
          }
          Sum dot[kCorners] = {};
          ScatterRun<Simd<Sum, kBytes>>(corner, weight, s.mask, from + column,
                                        count, to, dot);
          AddPointGradients(s, weight, dot, gradient);
        });
  }
}

template <typename Element, int kBytes>
constexpr Kernel<Element> MakeKernel(const char* isa) {
  return {isa, LocateBlock<Element>, GatherBlock<Element, kBytes>,
          ScatterBlock<Element, kBytes>};
}

template <int kBytes>
constexpr Kernels MakeKernels(const char* isa) {
  return {MakeKernel<float, kBytes>(isa), MakeKernel<double, kBytes>(isa),
          MakeKernel<BFloat16, kBytes>(isa), MakeKernel<Float16, kBytes>(isa)};
}

}  // namespace
}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_GENERIC_H_
