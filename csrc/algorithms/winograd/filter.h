// The transform of the filter, from its taps as they are or as prepared ones.

#ifndef KCONV_ALGORITHMS_WINOGRAD_FILTER_H_
#define KCONV_ALGORITHMS_WINOGRAD_FILTER_H_

#include "algorithms/winograd/fetch.h"
#include "algorithms/winograd/image_plan.h"

namespace kconv::winograd {

// Prepared taps: in floats, and in the order in which the forward transform
// takes them. The taps of a filter lie far apart, and where it meets few tiles,
// gathering them takes longer than their transform. U would have four times as
// many bytes: reading it would cost more than making it does.
//
//   [group][panel of columns][outer tap][channel][tap][columns of the panel]
//
// The last panel is as wide as whole vectors need. So this depends on the
// filter's shape and on the width of vectors and panels only.
struct PreparedTaps {
  PreparedTaps(const ConvShape& shape, const GemmKernel<float>& kernel);

  // Of the panel that begins at a column.
  int64_t Width(int64_t column) const {
    return RoundUp(std::min(kernel.panel, columns - column), kernel.lanes);
  }
  int64_t Floats() const { return groups * GroupFloats(); }
  // Where the taps of a channel begin in a panel.
  int64_t Offset(int64_t group, int64_t column, int64_t outer_tap,
                 int64_t channel) const {
    return group * GroupFloats() +
           taps * (outer_taps * channels * column +
                   (outer_tap * channels + channel) * Width(column));
  }

  const GemmKernel<float>& kernel;
  int64_t groups;
  int64_t channels;  // of a group
  int64_t columns;   // of a group
  int64_t outer_taps;
  int64_t taps;  // of the transformed axes

 private:
  int64_t GroupFloats() const {
    return taps * outer_taps * channels * RoundUp(columns, kernel.lanes);
  }
};

// Makes U of a pass.
template <typename Element>
class FilterTransform {
 public:
  // `prepared` may be null; backwards it is not read.
  FilterTransform(const ImagePlan& plan, const ConvShape& shape,
                  const Element* filter, const float* prepared);

  // U of a chunk of channels, for a block of columns. The scratch holds
  // FilterTransformFloats floats.
  void Run(const ImagePlan::Piece& piece, int64_t chunk, float* scratch,
           float* u) const;

  // Lists what Run will read.
  void Fetch(const ImagePlan::Piece& piece, int64_t chunk,
             FetchList* list) const;

 private:
  int64_t Offset(const ImagePlan::Piece& piece, int64_t chunk,
                 int64_t channel) const;
  void RunPrepared(const ImagePlan::Piece& piece, int64_t chunk,
                   float* u) const;

  const ImagePlan& p_;
  const ConvShape& shape_;
  const Element* filter_;
  const float* prepared_;
  const PreparedTaps order_;
};

int64_t FilterTransformFloats(const ImagePlan& plan);

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_FILTER_H_
