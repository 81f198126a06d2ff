// Between tensors, of any type and layout, and the scratch.

#ifndef KCONV_ALGORITHMS_GROUPED_STAGING_H_
#define KCONV_ALGORITHMS_GROUPED_STAGING_H_

#include "algorithms/grouped/grouped.h"
#include "half.h"
#include "simd.h"

namespace kconv::grouped {
namespace {

template <typename Element>
constexpr bool kIsSum = false;
template <>
constexpr bool kIsSum<float> = true;
template <>
constexpr bool kIsSum<double> = true;

// How far ahead places are fetched.
constexpr int64_t kPlacesAhead = 24;

// Whether the channels of all groups follow one another.
inline bool HasNoGaps(const Lanes& lanes) {
  return lanes.groups == 1 || lanes.channels == lanes.slot;
}

template <typename T>
inline void Clear(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = 0;
}

// Channels that follow one another, place by place and all units at once, so
// that a line of the cache is read once.
template <typename Element, int kBytes>
inline void StageLast(const Strip<Element>& s) {
  using Sum = SumType<Element>;
  using S = Simd<Sum, kBytes>;
  const Element* from = s.from;
  Sum* to = s.to + s.zeros_before * s.to_place;
  const int64_t channels = s.lanes.groups * s.lanes.channels;
  const int64_t width = s.lanes.width;
  const int64_t line = 64 / int64_t{sizeof(Element)};
  const bool whole = channels == width && channels % S::kLanes == 0;
  for (int64_t i = 0; i < s.count; ++i) {
    // Places are too far apart for the processor to foresee.
    for (int64_t c = 0; c < s.units * channels; c += line) {
      __builtin_prefetch(from + kPlacesAhead * s.place + c);
    }
    if constexpr (kIsSum<Element>) {
      if (whole && width == S::kLanes) {
        const Element* element = from;
        Sum* lane = to;
        for (int64_t u = 0; u < s.units; ++u) {
          S::Store(lane, S::Load(element));
          element += S::kLanes;
          lane += s.to_unit;
        }
        from += s.place;
        to += s.to_place;
        continue;
      }
    }
    for (int64_t u = 0; u < s.units; ++u) {
      const Element* element = from + u * channels;
      Sum* lane = to + u * s.to_unit;
      if constexpr (kIsSum<Element>) {
        if (whole) {
          for (int64_t c = 0; c < channels; c += S::kLanes) {
            S::Store(lane + c, S::Load(element + c));
          }
          continue;
        }
      }
      WidenRow(element, lane, channels);
      Clear(lane + channels, width - channels);
    }
    from += s.place;
    to += s.to_place;
  }
}

// Any strides. Where the places of a channel follow one another, four of each
// of four channels at a time.
template <typename Element>
inline void StageAny(const Strip<Element>& s) {
  using Sum = SumType<Element>;
  Sum* to = s.to + s.zeros_before * s.to_place;
  for (int64_t i = 0; i < s.count; ++i) {
    Clear(to + i * s.to_place, s.lanes.width);
  }
  for (int64_t g = 0; g < s.lanes.groups; ++g) {
    const Element* from = s.from + g * s.lanes.channels * s.channel;
    int64_t c = 0;
    if constexpr (kIsSum<Element>) {
      if (s.place == 1) {
        for (; c + 4 <= s.lanes.channels; c += 4) {
          Sum* lane = to + g * s.lanes.slot + c;
          const Element* first = from + c * s.channel;
          int64_t i = 0;
          for (; i + 4 <= s.count; i += 4) {
            Transpose4x4(first + i, s.channel, lane + i * s.to_place,
                         s.to_place);
          }
          for (; i < s.count; ++i) {
            for (int64_t l = 0; l < 4; ++l) {
              lane[i * s.to_place + l] = first[i + l * s.channel];
            }
          }
        }
      }
    }
    for (; c < s.lanes.channels; ++c) {
      Sum* lane = to + g * s.lanes.slot + c;
      for (int64_t i = 0; i < s.count; ++i) {
        lane[i * s.to_place] = Widen(from[c * s.channel + i * s.place]);
      }
    }
  }
}

template <typename Element, int kBytes>
void Stage(const Strip<Element>& s) {
  const int64_t end = s.zeros_before + s.count;
  for (int64_t u = 0; u < s.units; ++u) {
    SumType<Element>* to = s.to + u * s.to_unit;
    for (int64_t i = 0; i < s.zeros_before; ++i) {
      Clear(to + i * s.to_place, s.lanes.width);
    }
    for (int64_t i = end; i < end + s.zeros_after; ++i) {
      Clear(to + i * s.to_place, s.lanes.width);
    }
  }
  if (s.channel == 1 && HasNoGaps(s.lanes)) {
    StageLast<Element, kBytes>(s);
    return;
  }
  Strip<Element> of_unit = s;
  for (int64_t u = 0; u < s.units; ++u) {
    StageAny(of_unit);
    of_unit.from += s.lanes.groups * s.lanes.channels * s.channel;
    of_unit.to += s.to_unit;
  }
}

template <typename Element>
void Store(const Results<Element>& r) {
  const int64_t width = r.lanes.width;
  if (r.channel == 1 && HasNoGaps(r.lanes)) {
    const int64_t channels = r.lanes.groups * r.lanes.channels;
    for (int64_t i = 0; i < r.count; ++i) {
      for (int64_t c = 0; c < channels; ++c) {
        Narrow(r.from[i * width + c], r.to + i * r.place + c);
      }
    }
    return;
  }
  for (int64_t g = 0; g < r.lanes.groups; ++g) {
    Element* to = r.to + g * r.lanes.channels * r.channel;
    int64_t c = 0;
    if constexpr (kIsSum<Element>) {
      if (r.place == 1) {
        for (; c + 4 <= r.lanes.channels; c += 4) {
          const Element* lane = r.from + g * r.lanes.slot + c;
          Element* first = to + c * r.channel;
          int64_t i = 0;
          for (; i + 4 <= r.count; i += 4) {
            Transpose4x4(lane + i * width, width, first + i, r.channel);
          }
          for (; i < r.count; ++i) {
            for (int64_t l = 0; l < 4; ++l) {
              first[i + l * r.channel] = lane[i * width + l];
            }
          }
        }
      }
    }
    for (; c < r.lanes.channels; ++c) {
      const SumType<Element>* lane = r.from + g * r.lanes.slot + c;
      for (int64_t i = 0; i < r.count; ++i) {
        Narrow(lane[i * width], to + c * r.channel + i * r.place);
      }
    }
  }
}

}  // namespace
}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_STAGING_H_
