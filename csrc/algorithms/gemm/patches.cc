#include "algorithms/gemm/patches.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <type_traits>

namespace kconv::gemm {
namespace {

// A tap of one dimension: its pixel offset and its place in the kernel.
struct Tap {
  int64_t offset;
  int64_t index;
};

using TapsOfDims = std::vector<Tap>[kMaxSpatialDims];

// Fills strips and filter_taps with the product of the dimensions' taps.
void SetTaps(const ConvShape& shape, const TapsOfDims& taps, Patches* patches) {
  // Neighbouring pixels of a group touch only if it has all the channels.
  const bool can_join = patches->layout == Layout::kChannelsLast &&
                        patches->channels == patches->image_channels;
  for (const Tap& d : taps[0]) {
    for (const Tap& h : taps[1]) {
      for (size_t i = 0; i < taps[2].size(); ++i) {
        const Tap& w = taps[2][i];
        if (can_join && i > 0 && w.offset == taps[2][i - 1].offset + 1) {
          ++patches->strips.back().taps;
        } else {
          patches->strips.push_back(
              {{d.offset, h.offset, w.offset}, 1, patches->Depth()});
        }
        patches->filter_taps.push_back(
            (d.index * shape.kernel[1] + h.index) * shape.kernel[2] + w.index);
      }
    }
  }
}

// Where a grid point lies.
struct GridPoint {
  int64_t image;
  int64_t at[kMaxSpatialDims];
};

GridPoint PointOf(const Patches& p, int64_t number) {
  GridPoint point;
  point.at[2] = number % p.grid[2];
  number /= p.grid[2];
  point.at[1] = number % p.grid[1];
  number /= p.grid[1];
  point.at[0] = number % p.grid[0];
  point.image = number / p.grid[0];
  return point;
}

void Advance(const Patches& p, GridPoint* point) {
  if (++point->at[2] < p.grid[2]) return;
  point->at[2] = 0;
  if (++point->at[1] < p.grid[1]) return;
  point->at[1] = 0;
  if (++point->at[0] < p.grid[0]) return;
  point->at[0] = 0;
  ++point->image;
}

template <typename Element, typename Sum>
void Copy(const Element* from, int64_t count, Sum* to) {
  if constexpr (std::is_same_v<Element, Sum>) {
    // A call of memcpy costs more than a dozen moves.
    if (count >= 16) {
      std::memcpy(to, from, static_cast<size_t>(count) * sizeof(Sum));
      return;
    }
  }
  for (int64_t i = 0; i < count; ++i) to[i] = Widen(from[i]);
}

int64_t CeilDivide(int64_t a, int64_t b) {  // b > 0
  return a >= 0 ? (a + b - 1) / b : -(-a / b);
}

}  // namespace

std::vector<Patches::Strip>::const_iterator Patches::StripAt(
    int64_t depth) const {
  return std::prev(std::upper_bound(
      strips.begin(), strips.end(), depth,
      [](int64_t d, const Strip& strip) { return d < strip.depth_begin; }));
}

Patches InputPatches(const ConvShape& shape) {
  Patches p = {};
  p.channels = shape.GroupInChannels();
  p.image_channels = shape.in_channels;
  p.layout = shape.layout;
  TapsOfDims taps;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    p.size[i] = shape.input[i];
    p.grid[i] = shape.output[i];
    p.step[i] = shape.stride[i];
    for (int64_t k = 0; k < shape.kernel[i]; ++k) {
      taps[i].push_back({k * shape.dilation[i] - shape.pad_before[i], k});
    }
  }
  SetTaps(shape, taps, &p);
  return p;
}

Patches PhasePatches(const ConvShape& shape, const int64_t* phase) {
  Patches p = {};
  p.channels = shape.GroupOutChannels();
  p.image_channels = shape.out_channels;
  p.layout = shape.layout;
  TapsOfDims taps;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    p.size[i] = shape.output[i];
    p.grid[i] = std::max<int64_t>(
        0, CeilDivide(shape.input[i] - phase[i], shape.stride[i]));
    p.step[i] = 1;
    // Input pixel x meets tap k in output (x + pad - k * dilation) / stride.
    // From the last tap on, so that the offsets ascend as memory does.
    for (int64_t k = shape.kernel[i] - 1; k >= 0; --k) {
      const int64_t shifted =
          phase[i] + shape.pad_before[i] - k * shape.dilation[i];
      if (shifted % shape.stride[i] == 0) {
        taps[i].push_back({shifted / shape.stride[i], k});
      }
    }
  }
  SetTaps(shape, taps, &p);
  return p;
}

template <typename Element>
void PatchReader<Element>::CopyRows(int64_t first, int64_t rows, int64_t begin,
                                    int64_t end, Sum* to,
                                    int64_t stride) const {
  const Patches& p = patches_;
  const int64_t c = p.channels;
  const int64_t pixel = p.image_channels;
  GridPoint point = PointOf(p, first);
  const auto strip = p.StripAt(begin);

  for (int64_t i = 0; i < rows; ++i, to += stride, Advance(p, &point)) {
    const int64_t d0 = point.at[0] * p.step[0];
    const int64_t h0 = point.at[1] * p.step[1];
    const int64_t w0 = point.at[2] * p.step[2];
    Sum* at = to;
    for (auto s = strip; s != p.strips.end() && s->depth_begin < end; ++s) {
      const int64_t from = std::max(begin - s->depth_begin, int64_t{0});
      const int64_t until = std::min(end - s->depth_begin, s->taps * c);
      const int64_t d = d0 + s->offset[0];
      const int64_t h = h0 + s->offset[1];
      const int64_t w = w0 + s->offset[2];
      int64_t inside = from, outside = from;  // valid: [inside, outside)
      if (d >= 0 && d < p.size[0] && h >= 0 && h < p.size[1]) {
        inside =
            std::clamp(std::clamp(-w, int64_t{0}, s->taps) * c, from, until);
        outside = std::clamp(std::clamp(p.size[2] - w, int64_t{0}, s->taps) * c,
                             inside, until);
      }
      for (int64_t k = from; k < inside; ++k) *at++ = Sum(0);
      if (outside > inside) {
        const int64_t row = (point.image * p.size[0] + d) * p.size[1] + h;
        // Within a strip of several taps a pixel is c elements wide; a strip of
        // one tap may lie in a wider pixel.
        const int64_t offset = (row * p.size[2] + w) * pixel + inside;
        Copy(image_ + offset, outside - inside, at);
        at += outside - inside;
      }
      for (int64_t k = outside; k < until; ++k) *at++ = Sum(0);
    }
  }
}

template <typename Element>
void PatchReader<Element>::PointAtRows(int64_t first, int64_t rows,
                                       int64_t begin, int64_t end,
                                       const Element* zeros, Element* block,
                                       int64_t stride,
                                       const Element** to) const {
  const Patches& p = patches_;
  const auto strip = p.StripAt(begin);
  const int64_t from = begin - strip->depth_begin;
  const int64_t first_tap = from / p.channels;
  const int64_t last_tap = (end - 1 - strip->depth_begin) / p.channels;
  GridPoint point = PointOf(p, first);
  for (int64_t i = 0; i < rows; ++i, Advance(p, &point)) {
    const int64_t d = point.at[0] * p.step[0] + strip->offset[0];
    const int64_t h = point.at[1] * p.step[1] + strip->offset[1];
    const int64_t w = point.at[2] * p.step[2] + strip->offset[2];
    if (d < 0 || d >= p.size[0] || h < 0 || h >= p.size[1] ||
        w + last_tap < 0 || w + first_tap >= p.size[2]) {
      to[i] = zeros;
    } else if (w + first_tap >= 0 && w + last_tap < p.size[2]) {
      const int64_t row = (point.image * p.size[0] + d) * p.size[1] + h;
      to[i] = image_ + (row * p.size[2] + w) * p.image_channels + from;
    } else if constexpr (std::is_same_v<Element, Sum>) {
      CopyRows(first + i, 1, begin, end, block + i * stride, stride);
      to[i] = block + i * stride;
    }
  }
}

template <typename Element>
void PatchReader<Element>::CopyPlanes(int64_t begin, int64_t end, int64_t first,
                                      int64_t columns, Sum* to,
                                      int64_t stride) const {
  const Patches& p = patches_;
  const int64_t plane = p.ImagePixels();
  const GridPoint start = PointOf(p, first);
  const Element* image = image_ + start.image * p.image_channels * plane;
  for (int64_t k = begin; k < end; ++k, to += stride) {
    const Patches::Strip& strip = p.strips[k / p.channels];  // one tap each
    const Element* from = image + (k % p.channels) * plane;
    GridPoint point = start;
    for (int64_t j = 0; j < columns;) {
      // A run along one row of the grid.
      const int64_t run = std::min(columns - j, p.grid[2] - point.at[2]);
      const int64_t d = point.at[0] * p.step[0] + strip.offset[0];
      const int64_t h = point.at[1] * p.step[1] + strip.offset[1];
      const int64_t w = point.at[2] * p.step[2] + strip.offset[2];
      int64_t inside = 0, outside = 0;
      if (d >= 0 && d < p.size[0] && h >= 0 && h < p.size[1]) {
        inside = std::clamp(CeilDivide(-w, p.step[2]), int64_t{0}, run);
        outside = std::clamp(CeilDivide(p.size[2] - w, p.step[2]), inside, run);
      }
      Sum* at = to + j;
      std::fill(at, at + inside, Sum(0));
      if (outside > inside) {
        const int64_t row = (d * p.size[1] + h) * p.size[2] + w;
        if (p.step[2] == 1) {
          Copy(from + (row + inside), outside - inside, at + inside);
        } else {
          for (int64_t x = inside; x < outside; ++x) {
            at[x] = Widen(from[row + x * p.step[2]]);
          }
        }
      }
      std::fill(at + outside, at + run, Sum(0));
      j += run;
      point.at[2] += run - 1;
      Advance(p, &point);
    }
  }
}

template class PatchReader<float>;
template class PatchReader<double>;
template class PatchReader<BFloat16>;
template class PatchReader<Float16>;

}  // namespace kconv::gemm
