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

// The same tile, read from its end to its beginning along one axis.
template <typename Element>
void Turn(int64_t count, Element** data, int64_t* stride, int* begin,
          int* end) {
  // Unsigned: as the offset of a tile it may wrap.
  const uint64_t last =
      static_cast<uint64_t>(count - 1) * static_cast<uint64_t>(*stride);
  *data += static_cast<int64_t>(last);
  *stride = -*stride;
  const int n = static_cast<int>(count), first = *begin;
  *begin = n - *end;
  *end = n - first;
}

template <typename Element>
void TurnTile(const Tiling& tiling, int count, Tile<Element>* tile) {
  Turn(count, &tile->data, &tile->column_stride, &tile->column_begin,
       &tile->column_end);
  if (tiling.dims() == 2) {
    Turn(count, &tile->data, &tile->row_stride, &tile->row_begin,
         &tile->row_end);
  }
}

}  // namespace

int Tiling::TransformedAxes(const ConvShape& shape, bool transformed[]) {
  // The last two of the axes with the commonest kernel. 5 taps are less
  // accurate than 3, and 2 save less.
  for (const int64_t taps : {3, 5, 2}) {
    int found = 0;
    for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
      transformed[i] =
          found < 2 && CeilDivide(shape.kernel[i], shape.stride[i]) == taps;
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
  int64_t filter_step = shape.GroupInChannels() * shape.out_channels;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    axes[i].filter_step = filter_step;
    filter_step *= shape.kernel[i];
  }
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    Axis& a = axes[i];
    a.results = result.size[i];
    a.kernel = shape.kernel[i];
    a.stride = shape.stride[i];
    a.dilation = a.kernel > 1 ? shape.dilation[i] : 1;
    a.pad = shape.pad_before[i];
    a.transformed = transformed[i];
    a.taps = CeilDivide(a.kernel, a.stride);
    a.variants = backwards ? std::clamp<int64_t>(a.results, 1, a.stride) : 1;
    // Results of a variant.
    const int64_t results =
        backwards ? CeilDivide(a.results, a.stride) : a.results;
    if (!a.transformed) {
      a.outer_taps = backwards ? a.taps : a.kernel;
      a.source_step = 0;
      a.result_step = backwards ? a.stride : 1;
      a.tiles_per_phase = 1;
      a.tiles = results;
      continue;
    }
    a.outer_taps = backwards ? 1 : a.stride;
    a.source_step = backwards ? a.dilation : a.dilation * a.stride;
    a.result_step = backwards ? a.dilation * a.stride : a.dilation;
    const int64_t phases = std::min(a.dilation, results);
    a.tiles_per_phase =
        phases > 0 ? CeilDivide(CeilDivide(results, a.dilation), outputs) : 1;
    a.tiles = phases * a.tiles_per_phase;
    row_axis = column_axis;
    column_axis = i;
    taps = static_cast<int>(a.taps);
  }
}

bool Tiling::VariantsShareSource() const {
  for (const Axis& a : axes) {
    if ((a.pad + a.variants - 1) / a.stride != a.pad / a.stride) return false;
  }
  return true;
}

int64_t Tiling::SourceImages() const {
  int64_t images = 1;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    if (!axes[i].transformed && axes[i].outer_taps > 1) break;
    images *= axes[i].outer_taps;
  }
  return images;
}

Tiling::Extent Tiling::Taps(int64_t variant, int64_t outer_tap) const {
  Extent extent = {1, 1};
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    const Axis& a = axes[i];
    const int64_t tap = outer_tap % a.outer_taps;
    outer_tap /= a.outer_taps;
    const int64_t residue =
        backwards ? (variant % a.variants + a.pad) % a.stride : tap;
    variant /= a.variants;
    if (a.transformed) {
      const int there =
          static_cast<int>(CeilDivide(a.kernel - residue, a.stride));
      (i == column_axis ? extent.columns : extent.rows) = there;
    } else if (backwards && tap * a.stride + residue >= a.kernel) {
      return {0, 0};
    }
  }
  return extent;
}

Tiling::Extent Tiling::Frequencies(int64_t variant, int64_t outer_tap) const {
  Extent extent = Taps(variant, outer_tap);
  if (extent.columns == 0) return extent;
  extent.columns += outputs - 1;
  if (dims() == 2) extent.rows += outputs - 1;
  return extent;
}

double Tiling::FrequencyCount() const {
  double product = 1;
  for (const Axis& a : axes) {
    // A residue has the full number of taps, or one less: both as its taps.
    int64_t taken = a.kernel;
    if (a.transformed) taken += a.stride * (outputs - 1);
    product *= static_cast<double>(taken);
  }
  return product;
}

int64_t Tiling::FilterOffset(int64_t variant, int64_t outer_tap) const {
  int64_t offset = 0;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    const Axis& a = axes[i];
    int64_t tap = outer_tap % a.outer_taps;
    outer_tap /= a.outer_taps;
    if (backwards) {
      tap = tap * a.stride + (variant % a.variants + a.pad) % a.stride;
    }
    variant /= a.variants;
    offset += tap * a.filter_step;
  }
  return offset;
}

Tiling::Place Tiling::At(int64_t variant, int64_t tile) const {
  Place place;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    const Axis& a = axes[i];
    const int64_t number = tile % a.tiles;
    tile /= a.tiles;
    place.at[i] = variant % a.variants;
    variant /= a.variants;
    if (a.transformed) {
      place.at[i] += number / a.tiles_per_phase +
                     number % a.tiles_per_phase * outputs * a.result_step;
    } else {
      place.at[i] += number * a.result_step;
    }
  }
  place.image = tile;
  return place;
}

template <typename Element>
Tile<Element> Tiling::SourceTile(const Place& place, int64_t outer_tap,
                                 Element* data) const {
  const int n = Points();
  Tile<Element> tile = {data, 0, 0, source.channel_step, 0, 1, 0, 0};
  // Unsigned: far outside of the image, as with a huge dilation, it wraps.
  uint64_t offset = static_cast<uint64_t>(place.image * source.batch_step);
  bool outside = false;
  for (int i = kMaxSpatialDims - 1; i >= 0; --i) {
    const Axis& a = axes[i];
    const int64_t tap = outer_tap % a.outer_taps;
    outer_tap /= a.outer_taps;
    int64_t first;
    if (backwards) {
      const int64_t back = a.transformed ? a.taps - 1 : tap;
      first = (place.at[i] + a.pad) / a.stride - back * a.dilation;
    } else {
      // A residue is counted in pixels.
      first = place.at[i] * a.stride - a.pad +
              tap * (a.transformed ? 1 : a.dilation);
    }
    if (!a.transformed) {
      outside |= first < 0 || first >= source.size[i];
    } else if (i == column_axis) {
      tile.column_stride = a.source_step * source.step[i];
      Clip(first, a.source_step, source.size[i], n, &tile.column_begin,
           &tile.column_end);
    } else {
      tile.row_stride = a.source_step * source.step[i];
      Clip(first, a.source_step, source.size[i], n, &tile.row_begin,
           &tile.row_end);
    }
    offset += static_cast<uint64_t>(first) * source.step[i];
  }
  if (outside) tile.row_end = tile.row_begin;
  tile.data += static_cast<int64_t>(offset);
  if (backwards) TurnTile(*this, n, &tile);
  return tile;
}

template <typename Element>
Tile<Element> Tiling::ResultTile(const Place& place, Element* data) const {
  Tile<Element> tile = {data, 0, 0, result.channel_step, 0, 1, 0, 0};
  tile.data += place.image * result.batch_step;
  bool outside = false;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    const Axis& a = axes[i];
    tile.data += place.at[i] * result.step[i];
    if (i == column_axis) {
      tile.column_stride = a.result_step * result.step[i];
      Clip(place.at[i], a.result_step, a.results, outputs, &tile.column_begin,
           &tile.column_end);
    } else if (i == row_axis) {
      tile.row_stride = a.result_step * result.step[i];
      Clip(place.at[i], a.result_step, a.results, outputs, &tile.row_begin,
           &tile.row_end);
    } else {
      // Variants may have fewer results.
      outside |= place.at[i] >= a.results;
    }
  }
  if (outside) tile.row_end = tile.row_begin;
  if (backwards) TurnTile(*this, outputs, &tile);
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

}  // namespace kconv::winograd
