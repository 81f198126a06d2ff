// Where the tiles of a convolution lie.
//
// Up to two spatial axes are transformed. Along any other axis the taps are
// summed in the Winograd domain: they count as further channels, of an image
// that is shifted by the tap's offset. An axis with dilation d falls apart into
// d images of every d-th pixel (phases), each with tiles of its own.
//
// The taps v, v + s, v + 2 s, ... of an axis with stride s, its residue v, meet
// every s-th pixel. Seen from them the convolution has no stride, and of k taps
// r = ceil(k / s), or one less.
//   Forward, and in the filter gradient, the residues are summed like other
//   taps in the Winograd domain, where the image of each is a source.
//   In the input gradient each result meets the taps of one residue: the
//   results are s images of every s-th pixel, each with a filter of its own (a
//   variant of the pass).
// Where the last tap is missing, the frequencies at infinity are zero: there
// they are left out.
//
// In the input gradient the source runs against the taps. Tiles are read and
// written from their end to their beginning, and so the filter is not turned.

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
  struct Axis {
    int64_t results;
    int64_t kernel;
    int64_t stride;
    int64_t dilation;  // 1 where there is a stride
    int64_t pad;
    int64_t filter_step;  // elements from one tap of the filter to the next
    bool transformed;
    int64_t taps;         // of a residue, at most
    int64_t outer_taps;   // that are summed in the Winograd domain
    int64_t variants;     // of the results: the residues of the input gradient
    int64_t source_step;  // pixels from one input of a tile to the next
    int64_t result_step;  // ... from one result
    int64_t tiles_per_phase;
    int64_t tiles;  // of a variant
  };
  // Rows and columns.
  struct Extent {
    int rows;
    int columns;
  };

  // `outputs` results a tile and transformed axis.
  Tiling(const ConvShape& shape, Pass pass, int outputs);

  // Axes to transform: none if no kernel size is known to this algorithm.
  static int TransformedAxes(const ConvShape& shape, bool transformed[]);

  int dims() const { return row_axis < 0 ? 1 : 2; }
  // Tiles of a variant.
  int64_t Count() const {
    return batch * axes[0].tiles * axes[1].tiles * axes[2].tiles;
  }
  int64_t Variants() const {
    return axes[0].variants * axes[1].variants * axes[2].variants;
  }
  // Whether the tiles of all variants read the same.
  bool VariantsShareSource() const;

  // Frequencies of a tile, in rows and columns.
  int Points() const { return outputs + taps - 1; }
  int64_t Planes() const {
    return dims() == 2 ? Points() * Points() : Points();
  }

  // Taps that are summed in the Winograd domain. The first one is met by every
  // variant; the first SourceImages of them read different pixels.
  int64_t OuterTaps() const {
    return axes[0].outer_taps * axes[1].outer_taps * axes[2].outer_taps;
  }
  int64_t SourceImages() const;
  // The taps of a tile that there are, and the frequencies that are not zero:
  // none where the variant does not meet the outer tap.
  Extent Taps(int64_t variant, int64_t outer_tap) const;
  Extent Frequencies(int64_t variant, int64_t outer_tap) const;
  // Calls visit(plane) for these frequencies, or for the others.
  template <typename Visit>
  void VisitPlanes(const Extent& extent, bool within,
                   const Visit& visit) const {
    const int n = Points(), rows = dims() == 2 ? n : 1;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < n; ++j) {
        if ((i < extent.rows && j < extent.columns) == within) {
          visit(int64_t{i} * n + j);
        }
      }
    }
  }
  // Frequencies of all variants and outer taps.
  double FrequencyCount() const;
  // Elements of the filter before the first tap of a tile, and from one of its
  // rows or columns to the next.
  int64_t FilterOffset(int64_t variant, int64_t outer_tap) const;
  int64_t RowStep() const { return row_axis < 0 ? 0 : StepOf(row_axis); }
  int64_t ColumnStep() const { return StepOf(column_axis); }

  // The first result pixel of a tile, along each axis, and its image.
  struct Place {
    int64_t image;
    int64_t at[kMaxSpatialDims];
  };
  Place At(int64_t variant, int64_t tile) const;

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
  int64_t StepOf(int axis) const {
    return axes[axis].stride * axes[axis].filter_step;
  }
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_TILING_H_
