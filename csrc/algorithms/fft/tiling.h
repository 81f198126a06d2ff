// How an axis is cut into overlapping tiles, and which tiles a problem takes.

#ifndef KCONV_ALGORITHMS_FFT_TILING_H_
#define KCONV_ALGORITHMS_FFT_TILING_H_

#include "algorithms/fft/sizes.h"
#include "axis.h"
#include "conv.h"

namespace kconv::fft {

// Places first, first + step, ...: those that exist are begin <= j < end.
struct Range {
  int64_t first = 0, step = 1, begin = 0, end = 0;

  int64_t Count() const { return end - begin; }           // that exist
  int64_t Begin() const { return first + step * begin; }  // the first of them
};

// One axis, by overlap-save: a tile of n places that are read makes n - k + 1
// that are written. Where a single tile holds the axis fewer will do: what
// wraps around needs only not to meet anything but zeros.
class AxisTiling {
 public:
  AxisTiling(const ConvShape& s, Pass pass, int dim);

  // Takes the length of a number in kSizes; false if it does not serve.
  bool Take(int size);

  int64_t taps() const { return taps_; }
  int size() const { return size_; }
  int64_t points() const { return kSizes[size_]; }
  int64_t outputs() const { return outputs_; }  // of a tile
  int64_t reads() const {
    return std::min({points(), outputs_ + taps_ - 1, axis_.read()});
  }
  int64_t Count() const { return classes_ * tiles_; }

  // What a tile writes, of places in the image that is written, and reads. In
  // the filter gradient the first are those of the output's gradient.
  void Places(int64_t tile, Range* written, Range* read) const;
  // The taps, in the order in which they meet the places that are read.
  Range Taps() const;

 private:
  Axis axis_;
  bool backwards_;
  int64_t taps_;
  int64_t classes_;  // of places that a dilation keeps apart
  int64_t most_;     // places of one of them
  int size_ = 0;
  int64_t outputs_ = 1;
  int64_t tiles_ = 0;  // of a class
};

// The tiles of an image, over its last two axes; the second is the one along
// which real numbers are transformed.
struct Tiling {
  int dims[2];
  AxisTiling axes[2];

  Tiling(const ConvShape& s, Pass pass);

  int64_t Count() const { return axes[0].Count() * axes[1].Count(); }
  int64_t Planes() const {
    const int64_t n = axes[0].points();
    return 2 * (n / 2 + 1) + (axes[1].points() / 2 - 1) * n;
  }
};

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_TILING_H_
