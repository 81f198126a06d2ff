// The tensors of a problem, cut into tiles.

#ifndef KCONV_ALGORITHMS_FFT_OPERAND_H_
#define KCONV_ALGORITHMS_FFT_OPERAND_H_

#include <cstdint>

#include "algorithms/fft/plan.h"
#include "algorithms/fft/transforms.h"
#include "conv.h"

namespace kconv::fft {

// An image or a filter: the axes are the two that tiles extend over.
template <typename Element>
struct Operand {
  Element* data;
  int64_t axis[2];
  int64_t image;    // an image, of a filter unused
  int64_t channel;  // of a filter that of its input

  // The lanes beginning at an element, with the places of each axis. No address
  // is made of a place that does not exist: it may be as far away as a padding
  // or a dilation is large.
  Tile<Element> At(Element* first, const Range& rows, const Range& columns,
                   int64_t lane_stride, int64_t lanes) const {
    const bool exists = rows.Count() > 0 && columns.Count() > 0;
    return {exists ? first + rows.Begin() * axis[0] + columns.Begin() * axis[1]
                   : first,
            rows.Count() > 1 ? rows.step * axis[0] : 0,
            columns.Count() > 1 ? columns.step * axis[1] : 0,
            lane_stride,
            rows.begin,
            rows.end,
            columns.begin,
            columns.end,
            lanes};
  }
};

template <typename Element>
Operand<Element> ImageOf(const ConvShape& s, const Tiling& tiling,
                         bool is_output, Element* data) {
  const int64_t* size = is_output ? s.output : s.input;
  const int64_t channels = is_output ? s.out_channels : s.in_channels;
  const bool last = s.layout == Layout::kChannelsLast;
  const int64_t pixel = last ? channels : 1;
  Operand<Element> image;
  image.data = data;
  for (int i = 0; i < 2; ++i) {
    image.axis[i] = pixel * (tiling.dims[i] == 2 ? 1 : size[2]);
  }
  image.image = channels * size[0] * size[1] * size[2];
  image.channel = last ? 1 : size[0] * size[1] * size[2];
  return image;
}

template <typename Element>
Operand<Element> FilterOf(const ConvShape& s, const Tiling& tiling,
                          Element* data) {
  Operand<Element> filter;
  filter.data = data;
  filter.channel = s.out_channels;
  filter.image = 0;
  const int64_t tap = s.GroupInChannels() * s.out_channels;
  for (int i = 0; i < 2; ++i) {
    filter.axis[i] = tap * (tiling.dims[i] == 2 ? 1 : s.kernel[2]);
  }
  return filter;
}

// The places of a tile of all images.
struct TilePlaces {
  int64_t image;
  Range written[2], read[2];

  TilePlaces(const Tiling& tiling, int64_t tile) {
    const int64_t columns = tiling.axes[1].Count();
    const int64_t of_image = tiling.Count();
    image = tile / of_image;
    tiling.axes[0].Places(tile % of_image / columns, &written[0], &read[0]);
    tiling.axes[1].Places(tile % columns, &written[1], &read[1]);
  }
};

// Hands out the parts of a workspace, each on a cache line. From null it only
// counts.
class Arena {
 public:
  explicit Arena(void* begin) : at_(reinterpret_cast<intptr_t>(begin)) {}

  template <typename T>
  T* Take(int64_t count) {
    T* taken = reinterpret_cast<T*>(at_);
    at_ += RoundUp(count * int64_t{sizeof(T)}, 64);
    return taken;
  }
  int64_t Bytes() const { return at_; }

 private:
  intptr_t at_;
};

}  // namespace kconv::fft

#endif  // KCONV_ALGORITHMS_FFT_OPERAND_H_
