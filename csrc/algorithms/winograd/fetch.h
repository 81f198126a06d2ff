// Fetches memory ahead, a few cache lines between any two products.
//
// Tiles, their results and the taps of a filter lie in short pieces far apart,
// where no hardware prefetcher follows; a product that meanwhile works in the
// first levels of the cache leaves the memory idle.

#ifndef KCONV_ALGORITHMS_WINOGRAD_FETCH_H_
#define KCONV_ALGORITHMS_WINOGRAD_FETCH_H_

#include <algorithm>
#include <cstdint>

#include "algorithms/winograd/transforms.h"

namespace kconv::winograd {

// Calls visit(begin, bytes) for the channels of each pixel of a tile.
template <typename Element, typename Visit>
void VisitPixels(const Tile<const Element>& tile, int64_t channels,
                 const Visit& visit) {
  if (tile.channel_stride != 1) return;
  for (int64_t i = tile.row_begin; i < tile.row_end; ++i) {
    for (int64_t j = tile.column_begin; j < tile.column_end; ++j) {
      visit(tile.data + i * tile.row_stride + j * tile.column_stride,
            channels * int64_t{sizeof(Element)});
    }
  }
}

// Fetches a tile at once.
template <typename Element>
void FetchTile(const Tile<const Element>& tile, int64_t channels) {
  VisitPixels(tile, channels, [](const Element* pixel, int64_t bytes) {
    const char* at = reinterpret_cast<const char*>(pixel);
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
  });
}

class FetchList {
 public:
  // Lines that one list holds; what is too much is left to chance.
  static constexpr int64_t kRoom = 4096;

  explicit FetchList(const void** room) : lines_(room) {}

  void Clear() { count_ = next_ = 0; }

  // Adds the lines of `bytes` bytes.
  void Add(const void* begin, int64_t bytes) {
    const char* at = static_cast<const char*>(begin);
    const char* end = at + bytes;
    for (; at < end && count_ < kRoom; at += 64) lines_[count_++] = at;
  }

  // Fetches an even share of what is left, with `calls` more calls to come.
  void Fetch(int64_t calls) {
    const int64_t end =
        std::min(count_, next_ + (count_ - next_ + calls - 1) / calls);
    for (; next_ < end; ++next_) __builtin_prefetch(lines_[next_], 1, 2);
  }

 private:
  const void** lines_;
  int64_t count_ = 0;
  int64_t next_ = 0;
};

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_FETCH_H_
