// Gathering into panels and back. Part of generic.h.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_GENERIC_PANELS_H_
#define KCONV_ALGORITHMS_DEPTHWISE_GENERIC_PANELS_H_

#include "algorithms/depthwise/depthwise.h"
#include "simd.h"

namespace kconv::depthwise {
namespace {

// Columns gathered lane by lane at a time: what is read and what is written
// both stay in a few cache lines.
constexpr int64_t kSomeColumns = 16;

template <typename A, typename B>
struct IsSame {
  static constexpr bool kValue = false;
};
template <typename A>
struct IsSame<A, A> {
  static constexpr bool kValue = true;
};

// Whether columns and lanes only change places, four by four.
inline bool IsTransposed(int64_t pitch, int64_t repeat, int64_t used) {
  return pitch == 1 && repeat == 1 && used % 4 == 0;
}

template <typename Element, int kBytes>
void Gather(const Columns<const Element>& c, SumType<Element>* panel,
            int64_t lanes) {
  using Sum = SumType<Element>;
  for (int64_t j = 0; c.used < lanes && j < c.count; ++j) {
    for (int64_t l = c.used; l < lanes; ++l) panel[j * lanes + l] = Sum(0);
  }
  using S = Simd<Sum, kBytes>;
  if (c.channel == 1 && c.repeat == 1) {
    if constexpr (IsSame<Element, Sum>::kValue) {
      if (c.used == S::kLanes) {
        for (int64_t j = 0; j < c.count; ++j) {
          S::Store(panel + j * lanes, S::Load(c.tensor + j * c.pitch));
        }
        return;
      }
    }
    for (int64_t j = 0; j < c.count; ++j) {
      WidenRow(c.tensor + j * c.pitch, panel + j * lanes, c.used);
    }
    return;
  }
  int64_t done = 0;
  if constexpr (IsSame<Element, Sum>::kValue) {
    if (IsTransposed(c.pitch, c.repeat, c.used)) {
      for (; done + 4 <= c.count; done += 4) {
        for (int64_t l = 0; l < c.used; l += 4) {
          Transpose4x4(c.tensor + (l + c.skip) * c.channel + done, c.channel,
                       panel + done * lanes + l, lanes);
        }
      }
    }
  }
  for (int64_t first = done; first < c.count; first += kSomeColumns) {
    const int64_t end = Min(first + kSomeColumns, c.count);
    for (int64_t l = 0; l < c.used; ++l) {
      const Element* from = c.tensor + (l + c.skip) / c.repeat * c.channel;
      for (int64_t j = first; j < end; ++j) {
        panel[j * lanes + l] = Widen(from[j * c.pitch]);
      }
    }
  }
}

template <typename Element>
void Scatter(const Columns<Element>& c, const SumType<Element>* panel,
             int64_t lanes) {
  using Sum = SumType<Element>;
  if (c.channel == 1 && c.repeat == 1) {
    for (int64_t j = 0; j < c.count; ++j) {
      NarrowRow(panel + j * lanes, c.tensor + j * c.pitch, c.used);
    }
    return;
  }
  int64_t done = 0;
  if constexpr (IsSame<Element, Sum>::kValue) {
    if (IsTransposed(c.pitch, c.repeat, c.used)) {
      for (; done + 4 <= c.count; done += 4) {
        for (int64_t l = 0; l < c.used; l += 4) {
          Transpose4x4(panel + done * lanes + l, lanes,
                       c.tensor + l * c.channel + done, c.channel);
        }
      }
    }
  }
  for (int64_t first = done; first < c.count; first += kSomeColumns) {
    const int64_t end = Min(first + kSomeColumns, c.count);
    for (int64_t l = 0; l < c.used; l += c.repeat) {
      Element* to = c.tensor + l / c.repeat * c.channel;
      for (int64_t j = first; j < end; ++j) {
        Sum sum = panel[j * lanes + l];
        for (int64_t r = 1; r < c.repeat; ++r) sum += panel[j * lanes + l + r];
        Narrow(sum, to + j * c.pitch);
      }
    }
  }
}

}  // namespace
}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_GENERIC_PANELS_H_
