// One axis of a convolution, seen from the tensor that is written.
//
// With a stride s, a dilation d and a padding p an output o meets the inputs
//
//   i = s o - p + d t        for the taps t = 0, 1, ..., k - 1.
//
// The places that a pass writes, outputs or inputs, fall into classes by their
// remainder. Within a class they are a convolution without dilation and, in the
// input gradient, without stride: from one written place to the next the places
// read move by `stride` steps, from one tap to the next by one step. A kernel
// that knows strides but no dilation so serves every pass.

#ifndef KCONV_AXIS_H_
#define KCONV_AXIS_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>

#include "conv.h"
#include "split.h"

namespace kconv {

// What one written place sums: taps tap, tap + tap_step, ... meet the places
// from, from + step, ....
struct Reach {
  int64_t taps = 0;  // how many
  int64_t tap = 0, tap_step = 0;
  int64_t from = 0, step = 0;
};

// The written places first, first + pitch, ..., `count` of them. Number j reads
// at from + step (stride j + u) for u = 0, ..., taps - 1, which may lie
// outside, by the tap of number tap + tap_step u.
struct AxisClass {
  int64_t first = 0, pitch = 1, count = 0;
  int64_t from = 0, step = 1, stride = 1;
  int64_t tap = 0, tap_step = 1, taps = 0;
};

class Axis {
 public:
  // Forward and filter gradient: outputs read inputs. Input gradient: inputs
  // read outputs.
  Axis(const ConvShape& s, Pass pass, int dim)
      : is_transposed_(pass == Pass::kInputGradient),
        written_(is_transposed_ ? s.input[dim] : s.output[dim]),
        read_(is_transposed_ ? s.output[dim] : s.input[dim]),
        kernel_(s.kernel[dim]),
        stride_(s.stride[dim]),
        // A single tap has none.
        dilation_(s.kernel[dim] > 1 ? s.dilation[dim] : 1),
        pad_(s.pad_before[dim]),
        common_(std::gcd(stride_, dilation_)) {
    const int64_t steps = dilation_ / common_;
    const int64_t moves = is_transposed_ ? stride_ : 1;
    // Every place is a class where classes would reach beyond the last one.
    inverse_ = Inverse(steps, stride_ / common_);
    pitch_ = steps > written_ / moves ? std::max<int64_t>(written_, 1)
                                      : steps * moves;
  }

  // Places of the tensor that is written, and of the one that is read.
  int64_t written() const { return written_; }
  int64_t read() const { return read_; }

  int64_t classes() const { return std::min(pitch_, written_); }

  AxisClass Class(int64_t i) const {
    AxisClass c;
    c.first = i;
    c.pitch = pitch_;
    c.count = CeilDivide(written_ - i, pitch_);
    const Reach all = Unclipped(i);
    c.from = all.from;
    c.step = all.step;
    c.stride = is_transposed_ ? 1 : stride_ / common_;
    c.tap = all.tap;
    c.tap_step = all.tap_step;
    c.taps = all.taps;
    return c;
  }

  // Most places, in steps of a class, that `count` written ones of it read.
  int64_t MostReads(int64_t count) const {
    const int64_t taps_apart = stride_ / common_;
    return is_transposed_ ? count - 1 + CeilDivide(kernel_, taps_apart)
                          : taps_apart * (count - 1) + kernel_;
  }

  // What one written place sums, of the places that exist.
  Reach At(int64_t place) const {
    Reach r = Unclipped(place);
    const int64_t skipped =
        r.from < 0 ? std::min(CeilDivide(-r.from, r.step), r.taps) : 0;
    r.from += skipped * r.step;
    r.tap += skipped * r.tap_step;
    const int64_t fit =
        r.from < read_ ? (read_ - 1 - r.from) / r.step + 1 : int64_t{0};
    r.taps = std::min(r.taps - skipped, fit);
    return r;
  }

 private:
  Reach Unclipped(int64_t place) const {
    Reach r;
    if (!is_transposed_) {
      r.taps = kernel_;
      r.tap_step = 1;
      r.from = place * stride_ - pad_;
      r.step = dilation_;
      return r;
    }
    // s o = i + p - d t has a solution for every (s / g)th tap, g = gcd(s, d);
    // from one to the next o falls by d / g.
    const int64_t taps_apart = stride_ / common_;
    r.step = dilation_ / common_;
    r.tap_step = -taps_apart;
    if ((place + pad_) % common_ != 0) return r;
    // The first of them: (i + p) / g times the inverse of d / g, modulo s / g.
    const int64_t tap =
        static_cast<int64_t>(static_cast<__int128>((place + pad_) / common_) *
                             inverse_ % taps_apart);
    if (tap >= kernel_) return r;
    r.taps = (kernel_ - 1 - tap) / taps_apart + 1;
    r.tap = tap + taps_apart * (r.taps - 1);
    r.from = (place + pad_ - dilation_ * r.tap) / stride_;
    return r;
  }

  // Of a modulo m, which has no divisor in common with it: the x with a x = 1.
  static int64_t Inverse(int64_t a, int64_t m) {
    int64_t x = 0, next_x = 1, rest = m, next_rest = a % m;
    while (next_rest != 0) {
      const int64_t quotient = rest / next_rest;
      x = std::exchange(next_x, x - quotient * next_x);
      rest = std::exchange(next_rest, rest - quotient * next_rest);
    }
    return x < 0 ? x + m : x;
  }

  bool is_transposed_;
  int64_t written_, read_;
  int64_t kernel_, stride_, dilation_, pad_;
  int64_t common_;   // divisor of stride and dilation
  int64_t inverse_;  // of the dilation, modulo the stride, both without it
  int64_t pitch_;    // of a class
};

}  // namespace kconv

#endif  // KCONV_AXIS_H_
