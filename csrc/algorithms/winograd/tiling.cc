#include "algorithms/winograd/tiling.h"

#include <algorithm>

#include "split.h"

namespace kconv::winograd {
namespace {

Image ImageOf(const ConvShape& shape, const int64_t* size, int64_t channels) {
  Image image;
  const bool last = shape.layout == Layout::kChannelsLast;
  const int64_t pixels = size[0] * size[1] * size[2];
  int64_t step = last ? channels : 1;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    image.size[i] = size[i];
    image.step[i] = step;
    step *= size[i];
  }
  image.batch_step = channels * pixels;
  image.channel_step = last ? 1 : pixels;
  return image;
}

// The part of `count` pixels, `step` apart from `first` on, that lies within
// [0, size). Divides only at the border.
void Clip(int64_t first, int64_t step, int64_t size, int count, int* begin,
          int* end) {
  const int64_t n = count;
  *begin = 0;
  *end = count;
  if (first < 0) {
    *begin = static_cast<int>(std::min(n, CeilDivide(-first, step)));
  }
  if (first + (n - 1) * step >= size) {
    const int64_t inside = first < size ? CeilDivide(size - first, step) : 0;
    *end = std::max(*begin, static_cast<int>(std::min(n, inside)));
  }
}

}  // namespace

int Tiling::TransformedAxes(const ConvShape& shape, bool transformed[]) {
  // The last two of the axes with the commonest kernel: 5 taps are less
  // accurate, and so only for kernels without an axis of 3.
  for (const int64_t taps : {3, 5}) {
    int found = 0;
    for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
      transformed[i] = found < 2 && shape.kernel[i] == taps;
      found += transformed[i];
    }
    if (found > 0) return found;
  }
  return 0;
}

Tiling::Tiling(const ConvShape& shape, Pass pass, int outputs)
    : outputs(outputs),
      taps(1),
      batch(shape.batch),
      backwards(pass == Pass::kInputGradient),
      row_axis(-1) {
  bool transformed[kMaxSpatialDims];
  TransformedAxes(shape, transformed);
  const Image input = ImageOf(shape, shape.input, shape.in_channels);
  const Image output = ImageOf(shape, shape.output, shape.out_channels);
  source = backwards ? output : input;
  result = backwards ? input : output;
  column_axis = -1;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    Axis& a = axes[i];
    a.results = result.size[i];
    a.dilation = shape.dilation[i];
    a.taps = shape.kernel[i];
    // Backwards the taps run the other way.
    a.offset = backwards ? shape.pad_before[i] - (a.taps - 1) * a.dilation
                         : -shape.pad_before[i];
    a.transformed = transformed[i];
    a.tiles_per_phase = 1;
    a.tiles = a.results;
    if (a.transformed) {
      const int64_t phases = std::min(a.dilation, a.results);
      if (phases > 0) {
        a.tiles_per_phase =
            CeilDivide(CeilDivide(a.results, a.dilation), outputs);
      }
      a.tiles = phases * a.tiles_per_phase;
      row_axis = column_axis;
      column_axis = i;
      taps = static_cast<int>(a.taps);
    }
  }
}

int64_t Tiling::OuterTaps() const {
  int64_t product = 1;
  for (const Axis& a : axes) product *= a.transformed ? 1 : a.taps;
  return product;
}

int64_t Tiling::OuterTapOffset(const ConvShape& shape,
                               int64_t outer_tap) const {
  int64_t offset = 0;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    const Axis& a = axes[i];
    if (a.transformed) continue;
    const int64_t tap = outer_tap % a.taps;
    outer_tap /= a.taps;
    offset += (backwards ? a.taps - 1 - tap : tap) * TapStep(shape, i);
  }
  return offset;
}

int64_t Tiling::Origin(int axis, int64_t number) const {
  const Axis& a = axes[axis];
  if (!a.transformed) return number;
  const int64_t phase = number / a.tiles_per_phase;
  return phase + number % a.tiles_per_phase * outputs * a.dilation;
}

Tiling::Place Tiling::At(int64_t tile) const {
  Place place;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    place.at[i] = Origin(i, tile % axes[i].tiles);
    tile /= axes[i].tiles;
  }
  place.image = tile;
  return place;
}

template <typename Element>
Tile<Element> Tiling::SourceTile(const Place& place, int64_t outer_tap,
                                 Element* data) const {
  const int n = outputs + taps - 1;
  Tile<Element> tile = {data, 0, 0, source.channel_step, 0, 1, 0, 0};
  // Unsigned: far outside of the image, as with a huge dilation, it wraps.
  uint64_t offset = static_cast<uint64_t>(place.image * source.batch_step);
  bool outside = false;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    const Axis& a = axes[i];
    int64_t first = place.at[i] + a.offset;
    if (!a.transformed) {
      first += outer_tap % a.taps * a.dilation;
      outer_tap /= a.taps;
      outside |= first < 0 || first >= source.size[i];
    } else if (i == column_axis) {
      tile.column_stride = a.dilation * source.step[i];
      Clip(first, a.dilation, source.size[i], n, &tile.column_begin,
           &tile.column_end);
    } else {
      tile.row_stride = a.dilation * source.step[i];
      Clip(first, a.dilation, source.size[i], n, &tile.row_begin,
           &tile.row_end);
    }
    offset += static_cast<uint64_t>(first) * source.step[i];
  }
  if (outside) tile.row_end = tile.row_begin;
  tile.data += static_cast<int64_t>(offset);
  return tile;
}

template <typename Element>
Tile<Element> Tiling::ResultTile(const Place& place, Element* data) const {
  Tile<Element> tile = {data, 0, 0, result.channel_step, 0, 1, 0, 0};
  tile.data += place.image * result.batch_step;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    const Axis& a = axes[i];
    tile.data += place.at[i] * result.step[i];
    if (i == column_axis) {
      tile.column_stride = a.dilation * result.step[i];
      Clip(place.at[i], a.dilation, a.results, outputs, &tile.column_begin,
           &tile.column_end);
    } else if (i == row_axis) {
      tile.row_stride = a.dilation * result.step[i];
      Clip(place.at[i], a.dilation, a.results, outputs, &tile.row_begin,
           &tile.row_end);
    }
  }
  return tile;
}

#define KCONV_TILES(Element)                                                 \
  template Tile<Element> Tiling::SourceTile(const Place&, int64_t, Element*) \
      const;                                                                 \
  template Tile<Element> Tiling::ResultTile(const Place&, Element*) const;
KCONV_TILES(float)
KCONV_TILES(BFloat16)
KCONV_TILES(Float16)
KCONV_TILES(const float)
KCONV_TILES(const BFloat16)
KCONV_TILES(const Float16)
#undef KCONV_TILES

int64_t TapStep(const ConvShape& shape, int axis) {
  int64_t step = shape.GroupInChannels() * shape.out_channels;
  for (int i = axis + 1; i < kMaxSpatialDims; ++i) step *= shape.kernel[i];
  return step;
}

}  // namespace kconv::winograd
