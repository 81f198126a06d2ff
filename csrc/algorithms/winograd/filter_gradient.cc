// Filter gradient, by F(r, m): a tile of the input and the tile of the output's
// gradient that it meets, both transformed, give r x r results for each pair of
// channels; in the Winograd domain these are summed over all tiles.
//
// Threads transform the tiles of some blocks together; then each task takes a
// block of the filter, sums its products over a slice of the tiles, transforms
// the sum and adds it to the slice's partial result. Partial results are added
// in a fixed tree.

#include <type_traits>

#include "algorithms/winograd/blocking.h"
#include "algorithms/winograd/fetch.h"
#include "algorithms/winograd/source.h"
#include "algorithms/winograd/tiling.h"
#include "algorithms/winograd/transforms.h"
#include "algorithms/winograd/winograd.h"
#include "slices.h"

namespace kconv::winograd {
namespace {

// Tiles of a block: the depth of one product.
constexpr int64_t kBlockTiles = 96;
// As kMacsPerM, to add an element to the filter.
constexpr double kMacsPerTap = 40;
// The slices' partial results together.
constexpr int64_t kPartialFloats = (int64_t{16} << 20) / 4;

struct Plan {
  const GemmKernel<float>& kernel;
  Tiling tiling;
  const Transforms& transforms;
  int64_t groups;
  int64_t planes;
  int64_t outer_taps;
  Split chunks;      // input channels of a group
  Split columns;     // output channels of a group
  int64_t block;     // tiles whose frequencies lie together
  Split blocks;      // of all tiles
  int64_t shared;    // blocks that are there at a time
  Split slices;      // of these blocks
  int64_t elements;  // of the filter

  Plan(int outputs, const Problem& problem, Isa isa)
      : kernel(GemmKernelFor<float>(isa)),
        tiling(problem.shape, Pass::kForward, outputs),
        transforms(*FindTransforms(isa, outputs, tiling.taps, tiling.dims())),
        groups(problem.shape.groups),
        planes(tiling.Planes()),
        outer_taps(tiling.OuterTaps()),
        elements(problem.shape.FilterElements()) {
    const ConvShape& s = problem.shape;
    chunks = Split(s.GroupInChannels(), CeilDivide(s.GroupInChannels(), kChunk),
                   kLineFloats);
    columns = Split(s.GroupOutChannels(),
                    CeilDivide(s.GroupOutChannels(), BlockColumns(kernel)),
                    kernel.panel);
    const int64_t tiles = std::max<int64_t>(1, tiling.Count());
    block = TilesThatFit(
        kBlockTiles,
        groups * planes * (ChunkCount() * VRow() + columns.count * Width()));
    blocks = Split(tiling.Count(), CeilDivide(tiles, block), 1);
    block = std::min(blocks.size, tiles);
    const int64_t floats =
        groups * (ChunkCount() * VSize() + columns.count * WSize());
    shared = std::clamp<int64_t>(kSharedFloats / floats, 1,
                                 std::max<int64_t>(1, blocks.count));
    // Slices make up for a filter of few blocks.
    const int64_t tasks = groups * ChunkCount() * columns.count;
    const int64_t parts =
        std::min(kWantedTasks / tasks, kPartialFloats / elements);
    slices = Split(shared, std::max<int64_t>(1, parts), 1);
  }

  int64_t ChunkCount() const { return outer_taps * chunks.count; }
  int64_t Width() const { return RoundUp(columns.size, kernel.lanes); }

  // V of one block and chunk: [planes][block][channels].
  int64_t VRow() const { return RoundUp(chunks.size, kLineFloats); }
  int64_t VPlane() const { return PlaneStride(block * VRow()); }
  int64_t VSize() const { return planes * VPlane(); }
  // The output's gradient, of one block and block of columns: [planes][panels].
  int64_t WPlane() const { return PlaneStride(block * Width()); }
  int64_t WSize() const { return planes * WPlane(); }
  // Sums of one chunk and block of columns: [planes][channels][columns].
  int64_t MPlane() const { return PlaneStride(chunks.size * Width()); }
  int64_t MSize() const { return planes * MPlane(); }
  // The taps of one chunk and block of columns.
  int64_t TapSize() const { return PlaneStride(chunks.size * Width()); }
  int64_t TapCount() const {
    const int64_t taps = transforms.taps;
    return tiling.dims() == 2 ? taps * taps : taps;
  }
};

struct Scratch {
  float* m;
  float* taps;
  float** c_rows;
  const void** lines;

  Scratch(const Plan& p, Arena* arena) {
    m = arena->Take(p.MSize());
    taps = arena->Take(p.TapCount() * p.TapSize());
    c_rows = arena->Take<float*>(p.chunks.size);
    lines = arena->Take<const void*>(FetchList::kRoom);
  }

  static int64_t Bytes(const Plan& p) {
    Arena arena(nullptr);
    Scratch scratch(p, &arena);
    return arena.Bytes();
  }
};

// What all threads share.
template <typename Element>
struct Shared {
  float* v;
  float* w;
  float* partials;  // of each slice; null where the result takes the sums

  Shared(const Plan& p, Arena* arena) {
    v = arena->Take(p.groups * p.shared * p.ChunkCount() * p.VSize());
    w = arena->Take(p.groups * p.shared * p.columns.count * p.WSize());
    partials = nullptr;
    if (p.slices.count > 1 || !std::is_same_v<Element, float>) {
      partials = arena->Take(p.slices.count * p.elements);
    }
  }

  static int64_t Bytes(const Plan& p) {
    Arena arena(nullptr);
    Shared shared(p, &arena);
    return arena.Bytes();
  }
};

template <typename Element>
class FilterGradient {
 public:
  FilterGradient(int outputs, const Problem& problem, const ConvArgs& args,
                 Context* ctx)
      : shape_(problem.shape),
        p_(outputs, problem, ctx->isa),
        transforms_(TransformsOf<Element>(p_.transforms)),
        input_(static_cast<const Element*>(args.input)),
        gradient_(static_cast<const Element*>(args.output)),
        filter_(static_cast<Element*>(args.filter)),
        arena_(ctx->workspace),
        shared_(p_, &arena_),
        scratch_(arena_.Take<char>(0)),
        scratch_bytes_(Scratch::Bytes(p_)) {}

  void Run(Context* ctx) {
    ctx->isa_ran = p_.transforms.isa;
    if (p_.blocks.count == 0) {
      std::fill_n(filter_, p_.elements, Element{});
      return;
    }
    const int64_t chunks = p_.ChunkCount();
    const int64_t parts = p_.columns.count;
    const double plane_macs =
        static_cast<double>(p_.planes * p_.block * p_.chunks.size);
    for (int64_t first = 0; first < p_.blocks.count; first += p_.shared) {
      const int64_t some = std::min(p_.shared, p_.blocks.count - first);
      const int64_t each = chunks + parts;
      ctx->ParallelFor(
          p_.groups * some * each, plane_macs / kMacsPerSecond,
          [&](int64_t begin, int64_t end, int) {
            for (int64_t i = begin; i < end; ++i) {
              const int64_t at = i / each, block = first + at / p_.groups;
              const int64_t group = at % p_.groups, which = i % each;
              if (which < chunks) {
                TransformInput(group, block, which,
                               shared_.v + (at * chunks + which) * p_.VSize());
              } else {
                TransformGradient(
                    group, block, which - chunks,
                    shared_.w + (at * parts + which - chunks) * p_.WSize());
              }
            }
          });
      ctx->ParallelFor(p_.slices.count * p_.groups * parts * chunks,
                       plane_macs *
                           static_cast<double>(p_.Width() * p_.slices.size) /
                           kMacsPerSecond,
                       [&](int64_t begin, int64_t end, int worker) {
                         Arena arena(scratch_ + worker * scratch_bytes_);
                         const Scratch scratch(p_, &arena);
                         for (int64_t i = begin; i < end; ++i) {
                           SumSlice(first, some, i, scratch);
                         }
                       });
    }
    if (shared_.partials != nullptr) {
      AddSlices(shared_.partials, p_.slices.count, p_.elements, filter_, ctx);
    }
  }

 private:
  void TransformInput(int64_t group, int64_t block, int64_t chunk,
                      float* v) const {
    const int64_t tap = chunk / p_.chunks.count;
    const int64_t part = chunk % p_.chunks.count;
    const int64_t channel =
        group * shape_.GroupInChannels() + p_.chunks.Begin(part);
    const Element* data = input_ + channel * p_.tiling.source.channel_step;
    TransformTiles(p_.tiling, transforms_.input, 0, tap, p_.blocks.Begin(block),
                   p_.blocks.Size(block), p_.chunks.Size(part), data, v,
                   p_.VRow(), p_.VPlane());
  }

  void TransformGradient(int64_t group, int64_t block, int64_t part,
                         float* w) const {
    const int64_t channel =
        group * shape_.GroupOutChannels() + p_.columns.Begin(part);
    const Element* data = gradient_ + channel * p_.tiling.result.channel_step;
    const int64_t first = p_.blocks.Begin(block);
    const int64_t tiles = p_.blocks.Size(block);
    const int64_t columns = p_.columns.Size(part);
    Tile<const Element> next =
        p_.tiling.ResultTile(p_.tiling.At(0, first), data);
    for (int64_t t = 0; t < tiles; ++t) {
      Tile<const Element> tile = next;
      if (t + 1 < tiles) {
        next = p_.tiling.ResultTile(p_.tiling.At(0, first + t + 1), data);
        FetchTile(next, columns);
      }
      for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
        const int64_t count = std::min(p_.kernel.panel, columns - j);
        transforms_.output_gradient(
            tile, count, w + tiles * j + t * RoundUp(count, p_.kernel.lanes),
            p_.WPlane());
        tile.data += count * tile.channel_stride;
      }
    }
  }

  // Task `i` of the blocks [first, first + some): one chunk and block of
  // columns, over one slice.
  void SumSlice(int64_t first, int64_t some, int64_t i,
                const Scratch& scratch) const {
    const int64_t chunks = p_.ChunkCount();
    const int64_t parts = p_.columns.count;
    const int64_t chunk = i % chunks, part = i / chunks % parts;
    const int64_t group = i / chunks / parts % p_.groups;
    const int64_t slice = i / chunks / parts / p_.groups;
    const int64_t begin = p_.slices.Begin(slice);
    const int64_t end = std::min(p_.slices.End(slice), some);
    // The last blocks may be too few for all slices; the first are not.
    if (begin >= end) return;
    const int64_t channels = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t columns = p_.columns.Size(part);
    const int64_t width = p_.Width();
    for (int64_t c = 0; c < channels; ++c) {
      scratch.c_rows[c] = scratch.m + c * width;
    }
    const int64_t outer_tap = chunk / p_.chunks.count;
    const Tiling::Extent taps = p_.tiling.Taps(0, outer_tap);
    // The others would only make taps that are missing.
    const Tiling::Extent met = p_.tiling.Frequencies(0, outer_tap);
    float* to = nullptr;
    if constexpr (std::is_same_v<Element, float>) to = filter_;
    if (shared_.partials) to = shared_.partials + slice * p_.elements;
    to += group * shape_.GroupOutChannels() + p_.columns.Begin(part) +
          p_.chunks.Begin(chunk % p_.chunks.count) * shape_.out_channels +
          p_.tiling.FilterOffset(0, outer_tap);
    FetchList list(scratch.lines);
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * p_.groups + group;
      const float* v = shared_.v + (at * chunks + chunk) * p_.VSize();
      const float* w = shared_.w + (at * parts + part) * p_.WSize();
      const int64_t tiles = p_.blocks.Size(first + b);
      int64_t calls =
          met.rows * met.columns * CeilDivide(columns, p_.kernel.panel);
      if (b + 1 == end) {
        VisitTaps(to, taps, channels, [&](float* row, int64_t) {
          list.Add(row, columns * int64_t{sizeof(float)});
        });
      }
      p_.tiling.VisitPlanes(met, true, [&](int64_t f) {
        for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
          const int64_t count =
              RoundUp(std::min(p_.kernel.panel, columns - j), p_.kernel.lanes);
          list.Fetch(calls--);
          p_.kernel.by_columns(channels, count, tiles, v + f * p_.VPlane(),
                               p_.VRow(), w + f * p_.WPlane() + tiles * j,
                               scratch.c_rows, f * p_.MPlane() + j, b > begin);
        }
      });
    }
    TransformSum(taps, channels, columns, scratch, first > 0, to);
  }

  // Calls visit(row, at) for the rows of a block of the filter, tap by tap;
  // `at` is the row's place in the scratch.
  template <typename Visit>
  void VisitTaps(float* to, const Tiling::Extent& taps, int64_t channels,
                 const Visit& visit) const {
    for (int64_t i = 0; i < taps.rows; ++i) {
      for (int64_t j = 0; j < taps.columns; ++j) {
        float* row = to + i * p_.tiling.RowStep() + j * p_.tiling.ColumnStep();
        const int64_t at = (i * p_.transforms.taps + j) * p_.TapSize();
        for (int64_t c = 0; c < channels; ++c, row += shape_.out_channels) {
          visit(row, at + c * p_.Width());
        }
      }
    }
  }

  // First to taps that lie close together: those of a filter may fall into one
  // set of the cache.
  void TransformSum(const Tiling::Extent& taps, int64_t channels,
                    int64_t columns, const Scratch& scratch, bool accumulate,
                    float* to) const {
    const int64_t width = p_.Width();
    // All of a tile, so that whole vectors are written: what is made of
    // frequencies that nobody summed is in the taps that are missing.
    const int all = p_.transforms.taps;
    Tile<float> tile = {};
    tile.channel_stride = 1;
    tile.row_end = p_.tiling.dims() == 2 ? all : 1;
    tile.column_end = all;
    tile.row_stride = all * p_.TapSize();
    tile.column_stride = p_.TapSize();
    for (int64_t c = 0; c < channels; ++c) {
      tile.data = scratch.taps + c * width;
      p_.transforms.filter_gradient(scratch.m + c * width, p_.MPlane(),
                                    RoundUp(columns, p_.kernel.lanes), Ending(),
                                    tile);
    }
    VisitTaps(to, taps, channels, [&](float* row, int64_t at) {
      const float* from = scratch.taps + at;
      if (accumulate) {
        for (int64_t k = 0; k < columns; ++k) row[k] += from[k];
      } else {
        for (int64_t k = 0; k < columns; ++k) row[k] = from[k];
      }
    });
  }

  const ConvShape& shape_;
  const Plan p_;
  const ImageTransforms<Element>& transforms_;
  const Element* input_;
  const Element* gradient_;
  Element* filter_;
  Arena arena_;
  const Shared<Element> shared_;
  char* scratch_;
  int64_t scratch_bytes_;
};

}  // namespace

Work FilterGradientWork(int outputs, const Problem& problem, Isa isa) {
  const Plan p(outputs, problem, isa);
  const double planes = static_cast<double>(p.planes);
  const double groups = static_cast<double>(p.groups);
  const double tiles = static_cast<double>(p.tiling.Count());
  const double channels = static_cast<double>(
      RoundUp(problem.shape.GroupInChannels(), p.kernel.lanes));
  const double depth = static_cast<double>(p.outer_taps) * channels;
  // Of every tile and channel.
  const double products = p.tiling.FrequencyCount();
  const double columns =
      static_cast<double>(RoundUp(p.columns.total, p.kernel.lanes));
  const double sums = static_cast<double>(CeilDivide(p.blocks.count, p.shared) *
                                          p.slices.count);
  Work work;
  work.shared_bytes = problem.dtype == DType::kFloat32
                          ? Shared<float>::Bytes(p)
                          : Shared<BFloat16>::Bytes(p);
  work.worker_bytes = Scratch::Bytes(p);
  work.fits = work.shared_bytes / 4 <= 2 * kMaxSharedFloats + p.elements;
  const double v =
      kMacsPerV + kMacsPerSharedV * static_cast<double>(p.columns.count);
  const double w =
      kMacsPerV + kMacsPerSharedV * static_cast<double>(p.ChunkCount());
  work.macs =
      groups * (ProductMacs(products * tiles * channels * columns, p.block) +
                planes * tiles * (depth * v + columns * w) +
                sums * products * channels * columns * kMacsPerM) +
      sums * kMacsPerTap * static_cast<double>(p.elements);
  return work;
}

template <typename Element>
void RunFilterGradient(int outputs, const Problem& problem,
                       const ConvArgs& args, Context* ctx) {
  FilterGradient<Element>(outputs, problem, args, ctx).Run(ctx);
}

#define KCONV_RUN(Element)                                      \
  template void RunFilterGradient<Element>(int, const Problem&, \
                                           const ConvArgs&, Context*);
KCONV_RUN(float)
KCONV_RUN(BFloat16)
KCONV_RUN(Float16)
#undef KCONV_RUN

}  // namespace kconv::winograd
