#include "algorithms/fft/tiling.h"

#include <algorithm>

#include "split.h"

namespace kconv::fft {
namespace {

// The places from + step j, 0 <= j < count, that an axis of `size` has.
Range Existing(int64_t from, int64_t step, int64_t count, int64_t size) {
  Range r;
  r.first = from;
  r.step = step;
  r.begin = from < 0 ? std::min(CeilDivide(-from, step), count) : 0;
  r.end = from < size ? std::min(count, (size - 1 - from) / step + 1) : 0;
  r.end = std::max(r.begin, r.end);
  return r;
}

// The axis along which real numbers are transformed: the last one, unless its
// kernel is of one tap.
int SecondDim(const ConvShape& s) {
  return s.kernel[2] == 1 && s.kernel[1] > 1 ? 1 : 2;
}

}  // namespace

AxisTiling::AxisTiling(const ConvShape& s, Pass pass, int dim)
    : axis_(s, pass, dim),
      backwards_(pass == Pass::kInputGradient),
      taps_(s.kernel[dim]),
      classes_(axis_.classes()),
      most_(classes_ > 0 ? axis_.Class(0).count : 0) {}

bool AxisTiling::Take(int size) {
  const int64_t n = kSizes[size];
  size_ = size;
  if (n == 1) {
    outputs_ = 1;
    tiles_ = most_;
    return taps_ == 1;
  }
  outputs_ = n - taps_ + 1;
  if (classes_ == 1 && outputs_ < most_ && most_ <= n && taps_ <= n) {
    // What wraps around: the places from n on, to the first ones.
    const int64_t length = most_ + taps_ - 1, wrapped = length - n;
    const AxisClass c = axis_.Class(0);
    const Range real = Existing(c.from, c.step, length, axis_.read());
    if (real.end <= n && (real.begin >= wrapped || real.begin == real.end)) {
      outputs_ = most_;
    }
  }
  if (outputs_ < 1) return false;
  tiles_ = CeilDivide(most_, outputs_);
  // Even ones: less to load.
  outputs_ =
      std::max<int64_t>(1, CeilDivide(most_, std::max<int64_t>(tiles_, 1)));
  return true;
}

void AxisTiling::Places(int64_t tile, Range* written, Range* read) const {
  const AxisClass c = axis_.Class(tile / tiles_);
  const int64_t before = tile % tiles_ * outputs_;
  written->first = c.first + c.pitch * before;
  written->step = c.pitch;
  written->begin = 0;
  written->end = std::clamp<int64_t>(c.count - before, 0, outputs_);
  const int64_t length =
      written->end == 0 ? 0 : std::min(points(), written->end + taps_ - 1);
  *read = Existing(c.from + c.step * before, c.step, length, axis_.read());
}

Range AxisTiling::Taps() const {
  Range r;
  r.first = backwards_ ? taps_ - 1 : 0;
  r.step = backwards_ ? -1 : 1;
  r.end = taps_;
  return r;
}

Tiling::Tiling(const ConvShape& s, Pass pass)
    : dims{3 - SecondDim(s), SecondDim(s)},
      axes{AxisTiling(s, pass, dims[0]), AxisTiling(s, pass, dims[1])} {}

}  // namespace kconv::fft
