#include "algorithms/winograd/filter.h"

#include "algorithms/winograd/winograd.h"
#include "gemm/panels.h"
#include "half.h"

namespace kconv::winograd {
namespace {

int64_t TapsOf(const Tiling& tiling) {
  const int64_t taps = tiling.taps;
  return tiling.dims() == 2 ? taps * taps : taps;
}

// Elements of the filter from the first tap of the transformed axes to another.
int64_t TapOffset(const Tiling& tiling, int64_t tap) {
  return tap / tiling.taps * tiling.RowStep() +
         tap % tiling.taps * tiling.ColumnStep();
}

// Whether there is a tap.
bool IsWithin(const Tiling& tiling, const Tiling::Extent& there, int64_t tap) {
  return tap / tiling.taps < there.rows && tap % tiling.taps < there.columns;
}

// Channels whose taps are packed at a time: few enough for the scratch.
int64_t PieceOf(const ImagePlan& p) { return std::min(p.chunks.size, kChunk); }

// Floats from tap to tap of a piece. A power of two would have all taps fall
// into one set of the cache.
int64_t PieceStride(const ImagePlan& p) {
  return PlaneStride(PieceOf(p) * p.Width());
}

// All taps of a channel.
Tile<const float> TapTile(const Tiling& tiling, int64_t step) {
  Tile<const float> tile = {};
  tile.row_stride = tiling.taps * step;
  tile.column_stride = step;
  tile.channel_stride = 1;
  tile.row_end = tiling.dims() == 2 ? tiling.taps : 1;
  tile.column_end = tiling.taps;
  return tile;
}

}  // namespace

PreparedTaps::PreparedTaps(const ConvShape& shape,
                           const GemmKernel<float>& kernel)
    : kernel(kernel),
      groups(shape.groups),
      channels(shape.GroupInChannels()),
      columns(shape.GroupOutChannels()) {
  // Neither the direction nor the size of the tiles matters here.
  const Tiling tiling(shape, Pass::kForward, 2);
  outer_taps = tiling.OuterTaps();
  taps = TapsOf(tiling);
}

namespace {

template <typename Element>
void PrepareTaps(const ConvShape& shape, Isa isa, const void* elements,
                 float* to) {
  const auto* filter = static_cast<const Element*>(elements);
  const PreparedTaps order(shape, GemmKernelFor<float>(isa));
  const Tiling tiling(shape, Pass::kForward, 2);
  for (int64_t outer = 0; outer < order.outer_taps; ++outer) {
    for (int64_t tap = 0; tap < order.taps; ++tap) {
      const Element* row =
          filter + tiling.FilterOffset(0, outer) + TapOffset(tiling, tap);
      for (int64_t c = 0; c < order.channels; ++c, row += shape.out_channels) {
        for (int64_t group = 0; group < order.groups; ++group) {
          const Element* from = row + group * order.columns;
          for (int64_t j = 0; j < order.columns; j += order.kernel.panel) {
            const int64_t count =
                std::min(order.kernel.panel, order.columns - j);
            const int64_t width = order.Width(j);
            float* panel = to + order.Offset(group, j, outer, c) + tap * width;
            for (int64_t l = 0; l < count; ++l) panel[l] = Widen(from[j + l]);
            std::fill(panel + count, panel + width, 0.0f);
          }
        }
      }
    }
  }
}

}  // namespace

int64_t PreparedFilterBytes(const Problem& problem, Isa isa) {
  return PreparedTaps(problem.shape, GemmKernelFor<float>(isa)).Floats() *
         int64_t{sizeof(float)};
}

void PrepareFilter(const Problem& problem, Isa isa, const void* filter,
                   void* to) {
  float* taps = static_cast<float*>(to);
  if (problem.dtype == DType::kFloat32) {
    PrepareTaps<float>(problem.shape, isa, filter, taps);
  } else if (problem.dtype == DType::kBFloat16) {
    PrepareTaps<BFloat16>(problem.shape, isa, filter, taps);
  } else {
    PrepareTaps<Float16>(problem.shape, isa, filter, taps);
  }
}

template <typename Element>
FilterTransform<Element>::FilterTransform(const ImagePlan& plan,
                                          const ConvShape& shape,
                                          const Element* filter,
                                          const float* prepared)
    : p_(plan),
      shape_(shape),
      filter_(filter),
      prepared_(plan.backwards ? nullptr : prepared),
      order_(shape, plan.kernel) {}

// The filter's element for a row and the first column of a part of U.
template <typename Element>
int64_t FilterTransform<Element>::Offset(const ImagePlan::Piece& piece,
                                         int64_t chunk, int64_t channel) const {
  const int64_t column = p_.columns.Begin(piece.part);
  const int64_t o = shape_.out_channels;
  return piece.group * shape_.GroupOutChannels() +
         (p_.backwards ? channel + column * o : column + channel * o) +
         p_.tiling.FilterOffset(piece.variant, p_.OuterTap(chunk));
}

template <typename Element>
void FilterTransform<Element>::Run(const ImagePlan::Piece& piece, int64_t chunk,
                                   float* scratch, float* u) const {
  if (prepared_ != nullptr) return RunPrepared(piece, chunk, u);
  const int64_t columns = p_.columns.Size(piece.part);
  const int64_t first = p_.chunks.Begin(chunk % p_.chunks.count);
  const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
  const int64_t o = shape_.out_channels;
  const int64_t taps = TapsOf(p_.tiling), stride = PieceStride(p_);
  const Tiling::Extent there =
      p_.tiling.Taps(piece.variant, p_.OuterTap(chunk));
  Tile<const float> tile = TapTile(p_.tiling, stride);
  for (int64_t begin = 0; begin < depth; begin += PieceOf(p_)) {
    const int64_t rows = std::min(PieceOf(p_), depth - begin);
    const Element* from = filter_ + Offset(piece, chunk, first + begin);
    // Each tap in panels of floats first: side by side the taps of a filter
    // would fall into one set of the cache where channels are a power of two.
    for (int64_t tap = 0; tap < taps; ++tap) {
      float* to = scratch + tap * stride;
      if (!IsWithin(p_.tiling, there, tap)) {
        std::fill_n(to, rows * RoundUp(columns, p_.kernel.lanes), 0.0f);
        continue;
      }
      PackPanels(p_.kernel, {0, rows, rows}, columns,
                 from + TapOffset(p_.tiling, tap), p_.backwards ? 1 : o,
                 p_.backwards ? o : 1, to);
    }
    for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
      const int64_t width =
          RoundUp(std::min(p_.kernel.panel, columns - j), p_.kernel.lanes);
      for (int64_t c = 0; c < rows; ++c) {
        tile.data = scratch + rows * j + c * width;
        p_.transforms.filter(tile, width, u + depth * j + (begin + c) * width,
                             p_.UPlane());
      }
    }
  }
}

template <typename Element>
void FilterTransform<Element>::RunPrepared(const ImagePlan::Piece& piece,
                                           int64_t chunk, float* u) const {
  const int64_t first = p_.chunks.Begin(chunk % p_.chunks.count);
  const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
  const int64_t columns = p_.columns.Size(piece.part);
  for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
    const int64_t column = p_.columns.Begin(piece.part) + j;
    const int64_t width = order_.Width(column);
    Tile<const float> tile = TapTile(p_.tiling, width);
    tile.data = prepared_ +
                order_.Offset(piece.group, column, p_.OuterTap(chunk), first);
    for (int64_t c = 0; c < depth; ++c, tile.data += order_.taps * width) {
      p_.transforms.filter(tile, width, u + depth * j + c * width, p_.UPlane());
    }
  }
}

template <typename Element>
void FilterTransform<Element>::Fetch(const ImagePlan::Piece& piece,
                                     int64_t chunk, FetchList* list) const {
  const int64_t outer_tap = p_.OuterTap(chunk);
  const int64_t first = p_.chunks.Begin(chunk % p_.chunks.count);
  const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
  const int64_t columns = p_.columns.Size(piece.part);
  const int64_t taps = TapsOf(p_.tiling);
  if (prepared_ != nullptr) {
    for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
      const int64_t column = p_.columns.Begin(piece.part) + j;
      list->Add(
          prepared_ + order_.Offset(piece.group, column, outer_tap, first),
          taps * depth * order_.Width(column) * int64_t{sizeof(float)});
    }
    return;
  }
  const Tiling::Extent there = p_.tiling.Taps(piece.variant, outer_tap);
  const Element* data = filter_ + Offset(piece, chunk, first);
  const int64_t rows = p_.backwards ? columns : depth;
  const int64_t bytes =
      (p_.backwards ? depth : columns) * int64_t{sizeof(Element)};
  for (int64_t tap = 0; tap < taps; ++tap) {
    if (!IsWithin(p_.tiling, there, tap)) continue;
    const Element* at = data + TapOffset(p_.tiling, tap);
    for (int64_t row = 0; row < rows; ++row, at += shape_.out_channels) {
      list->Add(at, bytes);
    }
  }
}

int64_t FilterTransformFloats(const ImagePlan& plan) {
  return TapsOf(plan.tiling) * PieceStride(plan);
}

template class FilterTransform<float>;
template class FilterTransform<BFloat16>;
template class FilterTransform<Float16>;

}  // namespace kconv::winograd
