// V of some tiles, for the passes that read an image.

#ifndef KCONV_ALGORITHMS_WINOGRAD_SOURCE_H_
#define KCONV_ALGORITHMS_WINOGRAD_SOURCE_H_

#include "algorithms/winograd/fetch.h"
#include "algorithms/winograd/tiling.h"
#include "algorithms/winograd/transforms.h"

namespace kconv::winograd {

// Transforms `channels` channels, the first of which is at `data` in the first
// pixel, of tiles [first, first + tiles) of a variant for an outer tap: tile t
// to row t of each plane of v.
template <typename Element>
void TransformTiles(const Tiling& tiling, Expand<Element> input,
                    int64_t variant, int64_t outer_tap, int64_t first,
                    int64_t tiles, int64_t channels, const Element* data,
                    float* v, int64_t row, int64_t plane) {
  Tile<const Element> next =
      tiling.SourceTile(tiling.At(variant, first), outer_tap, data);
  for (int64_t t = 0; t < tiles; ++t) {
    const Tile<const Element> tile = next;
    if (t + 1 < tiles) {
      next =
          tiling.SourceTile(tiling.At(variant, first + t + 1), outer_tap, data);
      FetchTile(tiling.Centre(next), channels);
    }
    input(tile, channels, v + t * row, plane);
  }
}

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_SOURCE_H_
