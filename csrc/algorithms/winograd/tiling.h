// Where the tiles of a convolution lie.
//
// Up to two spatial axes whose kernels have 3 or 5 taps are transformed. Along
// any other axis the taps are summed in the Winograd domain: they count as
// further channels, of an image that is shifted by the tap's offset. An axis
// with dilation d falls apart into d images of every d-th pixel (phases), each
// with tiles of its own.

#ifndef KCONV_ALGORITHMS_WINOGRAD_TILING_H_
#define KCONV_ALGORITHMS_WINOGRAD_TILING_H_

#include <algorithm>

#include "algorithms/winograd/transforms.h"
#include "conv.h"

namespace kconv::winograd {

// An image whose tiles are read or written.
struct Image {
  int64_t size[kMaxSpatialDims];
  int64_t step[kMaxSpatialDims];  // elements from pixel to pixel
  int64_t batch_step;             // ... from image to image
  int64_t channel_step;           // ... from channel to channel
};

struct Tiling {
  // One spatial axis. Result pixel p and tap k meet source pixel
  // p + offset + k * dilation.
  struct Axis {
    int64_t results;
    int64_t offset;
    int64_t dilation;
    int64_t taps;
    bool transformed;
    int64_t tiles_per_phase;
    int64_t tiles;
  };

  // `outputs` results a tile and transformed axis.
  Tiling(const ConvShape& shape, Pass pass, int outputs);

  // Axes to transform: none if no kernel size is known to this algorithm.
  static int TransformedAxes(const ConvShape& shape, bool transformed[]);

  int dims() const { return row_axis < 0 ? 1 : 2; }
  int64_t Count() const {
    return batch * axes[0].tiles * axes[1].tiles * axes[2].tiles;
  }
  // Frequencies of a tile.
  int64_t Planes() const {
    const int64_t points = outputs + taps - 1;
    return dims() == 2 ? points * points : points;
  }
  // Taps that are summed in the Winograd domain, and the elements of the filter
  // before one of them.
  int64_t OuterTaps() const;
  int64_t OuterTapOffset(const ConvShape& shape, int64_t outer_tap) const;

  // The first result pixel of a tile, along each axis, and its image.
  struct Place {
    int64_t image;
    int64_t at[kMaxSpatialDims];
  };
  Place At(int64_t tile) const;

  // The inputs of a tile for an outer tap; the results of a tile. `data` is the
  // first element of the tile's channels in the first pixel of the batch.
  template <typename Element>
  Tile<Element> SourceTile(const Place& place, int64_t outer_tap,
                           Element* data) const;
  // Of a source tile the part that its neighbours do not read as well, about.
  template <typename Element>
  Tile<Element> Centre(Tile<Element> tile) const {
    const int from = taps / 2, until = from + outputs;
    tile.column_begin = std::max(tile.column_begin, from);
    tile.column_end = std::min(tile.column_end, until);
    if (dims() == 2) {
      tile.row_begin = std::max(tile.row_begin, from);
      tile.row_end = std::min(tile.row_end, until);
    }
    return tile;
  }
  template <typename Element>
  Tile<Element> ResultTile(const Place& place, Element* data) const;

  int outputs;
  int taps;  // of a transformed axis
  int64_t batch;
  Axis axes[kMaxSpatialDims];
  bool backwards;  // the input gradient
  int row_axis;    // -1 where only one axis is transformed
  int column_axis;
  Image source;
  Image result;

 private:
  int64_t Origin(int axis, int64_t number) const;
};

// Elements between taps of the filter that are neighbours along an axis.
int64_t TapStep(const ConvShape& shape, int axis);

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_TILING_H_
