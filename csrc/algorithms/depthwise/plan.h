// How the work is cut: boxes of written places, chunks of channels.
//
// Every constant is of the problem and the caches, none of the number of
// threads: the same boxes, and so the same bits, on 1 core and on 64.

#ifndef KCONV_ALGORITHMS_DEPTHWISE_PLAN_H_
#define KCONV_ALGORITHMS_DEPTHWISE_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "axis.h"
#include "conv.h"
#include "split.h"

namespace kconv::depthwise {

// Filters [first, first + count). All counting of channels is in filters: where
// several share a channel, it is read as if there were one for each.
struct Chunk {
  int64_t first, count;
};

// The filters in chunks of whole vectors, and one for those that fill none:
// what lies in whole vectors needs no panel.
class Chunks {
 public:
  Chunks() = default;
  Chunks(int64_t filters, int64_t most, int64_t lanes)
      : filters_(filters), full_(filters / lanes * lanes), lanes_(lanes) {
    if (full_ == 0) return;
    split_ = Split(full_, CeilDivide(full_, std::max(most, lanes)), lanes);
    lanes_ = split_.size;
  }

  // All filters of a channel in one chunk, whether they fill vectors or not.
  static Chunks OfChannels(int64_t filters, int64_t repeat, int64_t most,
                           int64_t lanes) {
    const int64_t channels = std::max<int64_t>(1, most / repeat);
    Chunks c;
    c.filters_ = c.full_ = filters;
    c.split_ = Split(filters, CeilDivide(filters / repeat, channels), repeat);
    c.lanes_ = RoundUp(c.split_.size, lanes);
    return c;
  }

  int64_t Count() const { return split_.count + (filters_ > full_ ? 1 : 0); }
  Chunk Get(int64_t i) const {
    return i < split_.count ? Chunk{split_.Begin(i), split_.Size(i)}
                            : Chunk{full_, filters_ - full_};
  }
  // Most lanes of a chunk.
  int64_t Lanes() const { return lanes_; }

 private:
  int64_t filters_ = 0, full_ = 0, lanes_ = 0;
  Split split_;
};

// A block of an axis: places number begin, ..., end - 1 of a class.
struct Band {
  AxisClass places;
  int64_t begin, end;

  int64_t Size() const { return end - begin; }
};

// An axis in blocks of at most `size` places of a class.
class Bands {
 public:
  Bands(const Axis& axis, int64_t size) : axis_(axis) {
    const int64_t classes = std::max<int64_t>(1, axis.classes());
    const int64_t longest = CeilDivide(axis.written(), classes);
    size_ = std::clamp<int64_t>(size, 1, std::max<int64_t>(1, longest));
    blocks_ = CeilDivide(longest, size_);
  }

  const Axis& axis() const { return axis_; }
  int64_t size() const { return size_; }
  int64_t blocks() const { return blocks_; }  // of a class
  int64_t MostReads() const { return axis_.MostReads(size_); }

  // May be empty: not all classes are as long as the first.
  Band Get(int64_t of_class, int64_t block) const {
    Band band{axis_.Class(of_class), block * size_, 0};
    band.end = std::min(band.begin + size_, band.places.count);
    band.begin = std::min(band.begin, band.end);
    return band;
  }

 private:
  Axis axis_;
  int64_t size_, blocks_;
};

// Rows and columns that a worker computes at a time, of one image and depth:
// all classes of a block of columns or, in the filter gradient, one.
struct Box {
  int64_t image, depth;
  Band rows;
  int64_t column_class, column_block;
};

// Rows that the next box reads first, and this one last.
inline int64_t Overlap(const Box& box, const Box& next) {
  const AxisClass& places = box.rows.places;
  const bool follows = next.image == box.image && next.depth == box.depth &&
                       next.rows.places.first == places.first &&
                       next.rows.begin == box.rows.end;
  return follows ? std::max<int64_t>(places.taps - places.stride, 0) : 0;
}

struct Plan {
  Axis depth;
  Bands rows, columns;
  Chunks chunks;
  int64_t column_classes;  // that boxes are told apart by
  int64_t boxes;
  int64_t lanes;   // of a vector
  int64_t repeat;  // filters of a channel
  // Which tensors go by way of panels, whatever the chunk.
  bool panels_of_input, panels_of_output;
  int64_t input_panel, output_panel;  // elements, 0 for none
  Split slices;                       // boxes; of the filter gradient only

  Plan(const Problem& problem, Isa isa);

  Box GetBox(int64_t i) const {
    Box box;
    box.column_block = i % columns.blocks();
    i /= columns.blocks();
    box.column_class = i % column_classes;
    i /= column_classes;
    const int64_t block = i % rows.blocks();
    i /= rows.blocks();
    box.rows = rows.Get(i % rows.axis().classes(), block);
    i /= rows.axis().classes();
    box.depth = i % depth.written();
    box.image = i / depth.written();
    return box;
  }

 private:
  int64_t ChunkLanes(const Problem& problem) const;
  bool HasPanels(const Problem& problem) const;
  int64_t BoxRows(const Problem& problem) const;
  void SizePanels(const Problem& problem);
};

}  // namespace kconv::depthwise

#endif  // KCONV_ALGORITHMS_DEPTHWISE_PLAN_H_
