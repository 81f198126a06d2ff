// Forward and input gradient.
//
// A pass multiplies, for each frequency, V [tiles x channels] by U [channels x
// columns]; columns are the channels of the result. It runs in one of two ways.
//
// Fused, where a block of tiles with all its channels fits the second-level
// cache: U is made first, then each task takes a block of tiles from the source
// to the result.
//
// Shared, where channels are many or tiles few: V of many tiles is made by all
// threads together, then each task takes a block of columns and makes the part
// of U that it needs, when it needs it.

#include <cstring>
#include <type_traits>

#include "algorithms/winograd/blocking.h"
#include "algorithms/winograd/fetch.h"
#include "algorithms/winograd/tiling.h"
#include "algorithms/winograd/transforms.h"
#include "algorithms/winograd/winograd.h"
#include "gemm/panels.h"

namespace kconv::winograd {
namespace {

// The cut of the work.
struct Plan {
  const GemmKernel<float>& kernel;
  Tiling tiling;
  const Transforms& transforms;
  bool backwards;
  bool finishes;  // whether there is an epilogue
  int64_t groups;
  int64_t channels;  // of a group of the source
  int64_t planes;
  int64_t tiles;
  int64_t outer_taps;
  Split chunks;   // channels of one tap
  Split columns;  // of a group
  bool fused;
  int64_t block;   // tiles whose V lies together
  Split blocks;    // of all tiles
  int64_t shared;  // blocks whose V is there at a time
  int64_t batch;   // blocks of one task

  Plan(int outputs, const Problem& problem, Isa isa)
      : kernel(GemmKernelFor<float>(isa)),
        tiling(problem.shape, problem.pass, outputs),
        transforms(*FindTransforms(isa, outputs, tiling.taps, tiling.dims())),
        backwards(tiling.backwards),
        finishes(!problem.epilogue.Empty()),
        groups(problem.shape.groups),
        channels(backwards ? problem.shape.GroupOutChannels()
                           : problem.shape.GroupInChannels()),
        planes(tiling.Planes()),
        tiles(tiling.Count()),
        outer_taps(tiling.OuterTaps()) {
    const int64_t result_channels = backwards
                                        ? problem.shape.GroupInChannels()
                                        : problem.shape.GroupOutChannels();
    const int64_t width = BlockColumns(kernel);
    columns = Split(result_channels, CeilDivide(result_channels, width),
                    kernel.panel);
    Cut();
  }

  void Cut();

  int64_t ChunkCount() const { return outer_taps * chunks.count; }
  int64_t Width() const { return RoundUp(columns.size, kernel.lanes); }

  // V of one block and chunk: [planes][block][channels of the chunk].
  int64_t VRow() const { return RoundUp(chunks.size, kLineFloats); }
  int64_t VPlane() const { return PlaneStride(block * VRow()); }
  int64_t VSize() const { return planes * VPlane(); }
  // U of one chunk and block of columns: [planes][panels].
  int64_t UPlane() const { return PlaneStride(chunks.size * Width()); }
  int64_t USize() const { return planes * UPlane(); }
  // M of one block and block of columns: [planes][block][columns].
  int64_t MPlane() const { return PlaneStride(block * Width()); }
  int64_t MSize() const { return planes * MPlane(); }
  // The taps of one chunk and block of columns.
  int64_t TapSize() const { return chunks.size * Width(); }
  int64_t TapCount() const {
    const int64_t taps = transforms.taps;
    return tiling.dims() == 2 ? taps * taps : taps;
  }
};

// The two ways meet where U, made once and written to memory, costs as much as
// U made again for each kBatchTiles tiles: from so many tiles on, and so many
// more for each MiB of U, the fused way is faster (Zen 3).
constexpr int64_t kFusedTiles = 96;
constexpr int64_t kFusedTilesPerMib = 12;
constexpr int64_t kMaxUFloats = (int64_t{64} << 20) / 4;
// Tiles of a fused block, so that U is read often enough from the cache ...
constexpr int64_t kMinFusedBlock = 24;
constexpr int64_t kMaxBlock = 48;
// ... and its channels: V of more would leave the second-level cache by far.
constexpr int64_t kMaxFusedDepth = 1024;
constexpr int64_t kFusedChunk = 128;

// Tiles that repay the making of U.
constexpr int64_t kBatchTiles = 96;

void Plan::Cut() {
  const int64_t depth = outer_taps * channels;
  const int64_t u_floats = groups * planes * depth * columns.total;
  fused = depth <= kMaxFusedDepth && u_floats <= kMaxUFloats &&
          tiles >= kFusedTiles + (u_floats >> 18) * kFusedTilesPerMib;
  chunks = Split(channels, CeilDivide(channels, fused ? kFusedChunk : kChunk),
                 kLineFloats);
  const int64_t v_floats = planes * chunks.count * VRow() * outer_taps;
  int64_t most = TilesThatFit(kMaxBlock, groups * v_floats);
  if (fused) {
    // V and M of a block in three quarters of the second-level cache.
    const int64_t fit = CacheFloats() * 3 / 4 / (v_floats + planes * Width());
    most = std::clamp(fit / kTileUnit * kTileUnit, kMinFusedBlock, kMaxBlock);
  }
  blocks = Split(tiles, CeilDivide(tiles, most), kTileUnit / 2);
  block = std::clamp<int64_t>(tiles, 1, blocks.size);
  shared = batch = 1;
  if (fused) return;
  const int64_t room = kSharedFloats / (groups * ChunkCount() * VSize());
  shared = Split(blocks.count,
                 CeilDivide(blocks.count, std::max<int64_t>(1, room)), 1)
               .size;
  // As many blocks a task as leave enough tasks, but enough for U to pay.
  const int64_t tasks = groups * columns.count;
  batch = std::max(Split(shared, CeilDivide(kWantedTasks, tasks), 1).size,
                   std::min(shared, CeilDivide(kBatchTiles, block)));
}

// The scratch of one worker.
struct Scratch {
  float* v;
  float* u;
  float* m;
  float* taps;
  const float** a_rows;
  float** c_rows;
  Tiling::Place* places;
  const void** lines;

  Scratch(const Plan& p, Arena* arena) {
    v = p.fused ? arena->Take(p.ChunkCount() * p.VSize()) : nullptr;
    u = p.fused ? nullptr : arena->Take(p.USize());
    m = arena->Take(p.batch * p.MSize());
    taps = arena->Take(p.TapCount() * p.TapSize());
    a_rows = arena->Take<const float*>(p.block);
    c_rows = arena->Take<float*>(p.block);
    places = arena->Take<Tiling::Place>(p.block);
    lines = arena->Take<const void*>(FetchList::kRoom);
  }

  static int64_t Bytes(const Plan& p) {
    Arena arena(nullptr);
    Scratch scratch(p, &arena);
    return arena.Bytes();
  }
};

// The bias of each block of columns, in whole vectors; zeros for none.
int64_t BiasFloats(const Plan& p) {
  return p.finishes
             ? RoundUp(p.groups * p.columns.count * p.Width(), kLineFloats)
             : 0;
}

// U of the fused way, V of the other.
int64_t FrequencyFloats(const Plan& p) {
  return p.fused ? p.groups * p.columns.count * p.ChunkCount() * p.USize()
                 : p.groups * p.shared * p.ChunkCount() * p.VSize();
}

int64_t SharedFloats(const Plan& p) {
  return FrequencyFloats(p) + BiasFloats(p);
}

template <typename Element>
class ImagePass {
 public:
  ImagePass(int outputs, const Problem& problem, const ConvArgs& args,
            Context* ctx)
      : shape_(problem.shape),
        p_(outputs, problem, ctx->isa),
        transforms_(TransformsOf<Element>(p_.transforms)),
        source_(static_cast<const Element*>(p_.backwards ? args.output
                                                         : args.input)),
        filter_(static_cast<const Element*>(args.filter)),
        result_(static_cast<Element*>(p_.backwards ? args.input : args.output)),
        bias_(static_cast<const Element*>(args.bias)),
        activation_(problem.epilogue.activation),
        shared_(static_cast<float*>(ctx->workspace)),
        scratch_(static_cast<char*>(ctx->workspace) + 4 * SharedFloats(p_)),
        scratch_bytes_(Scratch::Bytes(p_)) {}

  void Run(Context* ctx) {
    ctx->isa_ran = p_.transforms.isa;
    WidenBias();
    if (p_.fused) {
      RunFused(ctx);
    } else {
      RunShared(ctx);
    }
  }

 private:
  Scratch ScratchOf(int worker) const {
    Arena arena(scratch_ + worker * scratch_bytes_);
    return Scratch(p_, &arena);
  }

  void WidenBias() {
    if (!p_.finishes) return;
    float* to = shared_ + FrequencyFloats(p_);
    std::fill_n(to, BiasFloats(p_), 0.0f);
    if (bias_ == nullptr) return;
    for (int64_t i = 0; i < p_.groups * p_.columns.count; ++i) {
      const int64_t part = i % p_.columns.count;
      const Element* from = bias_ + i / p_.columns.count * p_.columns.total +
                            p_.columns.Begin(part);
      for (int64_t k = 0; k < p_.columns.Size(part); ++k) {
        to[i * p_.Width() + k] = Widen(from[k]);
      }
    }
  }

  Ending EndingOf(int64_t group, int64_t part) const {
    if (!p_.finishes) return Ending();
    return {shared_ + FrequencyFloats(p_) +
                (group * p_.columns.count + part) * p_.Width(),
            activation_};
  }

  double SecondsOf(double tiles, double columns) const {
    return tiles * columns * static_cast<double>(p_.planes * p_.channels) /
           kMacsPerSecond;
  }

  void RunFused(Context* ctx) {
    const int64_t chunks = p_.ChunkCount();
    const int64_t parts = p_.columns.count;
    ctx->ParallelFor(p_.groups * parts * chunks,
                     SecondsOf(1, static_cast<double>(p_.columns.size)),
                     [&](int64_t begin, int64_t end, int worker) {
                       const Scratch scratch = ScratchOf(worker);
                       for (int64_t i = begin; i < end; ++i) {
                         const int64_t chunk = i % chunks, part = i / chunks;
                         TransformFilter(part / parts, part % parts, chunk,
                                         scratch, shared_ + i * p_.USize());
                       }
                     });
    ctx->ParallelFor(
        p_.groups * p_.blocks.count,
        SecondsOf(static_cast<double>(p_.block),
                  static_cast<double>(p_.columns.total)),
        [&](int64_t begin, int64_t end, int worker) {
          const Scratch scratch = ScratchOf(worker);
          FetchList list(scratch.lines);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t group = i % p_.groups, block = i / p_.groups;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
              TransformSource(group, block, chunk,
                              scratch.v + chunk * p_.VSize());
            }
            for (int64_t part = 0; part < parts; ++part) {
              for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                const int64_t product = part * chunks + chunk;
                list.Clear();
                if (chunk + 1 == chunks) {
                  AddResult(group, block, part, &list);
                }
                if (i + 1 < end) {
                  AddSource((i + 1) % p_.groups, (i + 1) / p_.groups, product,
                            parts * chunks, &list);
                }
                Multiply(
                    block, part, chunk, scratch.v + chunk * p_.VSize(),
                    shared_ + (group * parts * chunks + product) * p_.USize(),
                    scratch, scratch.m, &list);
              }
              TransformResult(group, block, part, scratch.m);
            }
          }
        });
  }

  void RunShared(Context* ctx) {
    const int64_t chunks = p_.ChunkCount();
    const int64_t parts = p_.columns.count;
    for (int64_t first = 0; first < p_.blocks.count; first += p_.shared) {
      const int64_t some = std::min(p_.shared, p_.blocks.count - first);
      ctx->ParallelFor(p_.groups * some * chunks,
                       SecondsOf(static_cast<double>(p_.block), 1),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t i = begin; i < end; ++i) {
                           const int64_t group = i / chunks % p_.groups;
                           const int64_t block = i / chunks / p_.groups;
                           TransformSource(group, first + block, i % chunks,
                                           shared_ + i * p_.VSize());
                         }
                       });
      const int64_t batches = CeilDivide(some, p_.batch);
      ctx->ParallelFor(
          p_.groups * batches * parts,
          SecondsOf(static_cast<double>(p_.block * p_.batch),
                    static_cast<double>(p_.columns.size)),
          [&](int64_t begin, int64_t end, int worker) {
            const Scratch scratch = ScratchOf(worker);
            FetchList list(scratch.lines);
            for (int64_t i = begin; i < end; ++i) {
              const int64_t part = i % parts, group = i / parts % p_.groups;
              const int64_t from = i / parts / p_.groups * p_.batch;
              const int64_t until = std::min(from + p_.batch, some);
              for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                TransformFilter(group, part, chunk, scratch, scratch.u);
                for (int64_t b = from; b < until; ++b) {
                  const int64_t at = (b * p_.groups + group) * chunks + chunk;
                  list.Clear();
                  if (chunk + 1 == chunks) {
                    AddResult(group, first + b, part, &list);
                  } else if (b == from) {
                    AddFilter(group, part, chunk + 1, &list);
                  }
                  Multiply(first + b, part, chunk, shared_ + at * p_.VSize(),
                           scratch.u, scratch,
                           scratch.m + (b - from) * p_.MSize(), &list);
                }
              }
              for (int64_t b = from; b < until; ++b) {
                TransformResult(group, first + b, part,
                                scratch.m + (b - from) * p_.MSize());
              }
            }
          });
    }
  }

  // V of a block of tiles, for a chunk of channels.
  void TransformSource(int64_t group, int64_t block, int64_t chunk,
                       float* v) const {
    const int64_t tap = chunk / p_.chunks.count;
    const int64_t part = chunk % p_.chunks.count;
    const int64_t channel = group * p_.channels + p_.chunks.Begin(part);
    const Element* data = source_ + channel * p_.tiling.source.channel_step;
    const int64_t first = p_.blocks.Begin(block);
    const int64_t tiles = p_.blocks.Size(block);
    Tile<const Element> next =
        p_.tiling.SourceTile(p_.tiling.At(first), tap, data);
    for (int64_t t = 0; t < tiles; ++t) {
      const Tile<const Element> tile = next;
      if (t + 1 < tiles) {
        next = p_.tiling.SourceTile(p_.tiling.At(first + t + 1), tap, data);
        FetchTile(p_.tiling.Centre(next), p_.chunks.Size(part));
      }
      transforms_.input(tile, p_.chunks.Size(part), v + t * p_.VRow(),
                        p_.VPlane());
    }
  }

  // What TransformResult will write.
  void AddResult(int64_t group, int64_t block, int64_t part,
                 FetchList* list) const {
    const int64_t channel = group * p_.columns.total + p_.columns.Begin(part);
    const Element* data = result_ + channel * p_.tiling.result.channel_step;
    const int64_t first = p_.blocks.Begin(block);
    for (int64_t t = 0; t < p_.blocks.Size(block); ++t) {
      AddTile(p_.tiling.ResultTile(p_.tiling.At(first + t), data),
              p_.columns.Size(part), list);
    }
  }

  // Part `part` of `parts` of what TransformSource will read.
  void AddSource(int64_t group, int64_t block, int64_t part, int64_t parts,
                 FetchList* list) const {
    const Element* data =
        source_ + group * p_.channels * p_.tiling.source.channel_step;
    const int64_t first = p_.blocks.Begin(block);
    const int64_t tiles = p_.blocks.Size(block);
    for (int64_t t = tiles * part / parts; t < tiles * (part + 1) / parts;
         ++t) {
      AddTile(p_.tiling.Centre(
                  p_.tiling.SourceTile(p_.tiling.At(first + t), 0, data)),
              p_.channels, list);
    }
  }

  static void AddTile(const Tile<const Element>& tile, int64_t channels,
                      FetchList* list) {
    VisitPixels(tile, channels, [&](const Element* pixel, int64_t bytes) {
      list->Add(pixel, bytes);
    });
  }

  // What TransformFilter will read.
  void AddFilter(int64_t group, int64_t part, int64_t chunk,
                 FetchList* list) const {
    const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t columns = p_.columns.Size(part);
    const Element* data = filter_ + FilterOffset(group, part, chunk);
    const int64_t rows = p_.backwards ? columns : depth;
    const int64_t bytes =
        (p_.backwards ? depth : columns) * int64_t{sizeof(Element)};
    for (int64_t tap = 0; tap < p_.TapCount(); ++tap) {
      const Element* at = data + tap / p_.transforms.taps * RowStep() +
                          tap % p_.transforms.taps * ColumnStep();
      for (int64_t row = 0; row < rows; ++row, at += shape_.out_channels) {
        list->Add(at, bytes);
      }
    }
  }

  // Elements between neighbouring taps of the transformed axes.
  int64_t RowStep() const {
    return p_.tiling.dims() == 2 ? TapStep(shape_, p_.tiling.row_axis) : 0;
  }
  int64_t ColumnStep() const { return TapStep(shape_, p_.tiling.column_axis); }

  // The filter's element for the first row and column of a chunk of U.
  int64_t FilterOffset(int64_t group, int64_t part, int64_t chunk) const {
    const int64_t column = p_.columns.Begin(part);
    const int64_t channel = p_.chunks.Begin(chunk % p_.chunks.count);
    const int64_t o = shape_.out_channels;
    return group * shape_.GroupOutChannels() +
           (p_.backwards ? channel + column * o : column + channel * o) +
           p_.tiling.OuterTapOffset(shape_, chunk / p_.chunks.count);
  }

  // U of a chunk of channels, for a block of columns.
  void TransformFilter(int64_t group, int64_t part, int64_t chunk,
                       const Scratch& scratch, float* u) const {
    const int64_t columns = p_.columns.Size(part);
    const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t taps = p_.transforms.taps;
    const int64_t offset = FilterOffset(group, part, chunk);
    const int64_t o = shape_.out_channels;
    // Each tap in panels of floats first: side by side the taps of a filter
    // would fall into one set of the cache where channels are a power of two.
    // Backwards the filter is rotated: its taps are taken in the opposite
    // order.
    const int64_t rows = p_.tiling.dims() == 2 ? taps : 1;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < taps; ++j) {
        const int64_t to =
            p_.backwards ? (rows - 1 - i) * taps + taps - 1 - j : i * taps + j;
        PackPanels(p_.kernel, {0, depth, depth}, columns,
                   filter_ + offset + i * RowStep() + j * ColumnStep(),
                   p_.backwards ? 1 : o, p_.backwards ? o : 1,
                   scratch.taps + to * p_.TapSize());
      }
    }
    Tile<const float> tile = {};
    tile.row_stride = taps * p_.TapSize();
    tile.column_stride = p_.TapSize();
    tile.channel_stride = 1;
    tile.row_end = static_cast<int>(rows);
    tile.column_end = static_cast<int>(taps);
    for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
      const int64_t width =
          RoundUp(std::min(p_.kernel.panel, columns - j), p_.kernel.lanes);
      for (int64_t c = 0; c < depth; ++c) {
        const int64_t at = depth * j + c * width;
        tile.data = scratch.taps + at;
        p_.transforms.filter(tile, width, u + at, p_.UPlane());
      }
    }
  }

  // M (+)= V U, plane by plane.
  void Multiply(int64_t block, int64_t part, int64_t chunk, const float* v,
                const float* u, const Scratch& scratch, float* m,
                FetchList* list) const {
    const int64_t tiles = p_.blocks.Size(block);
    const int64_t columns = p_.columns.Size(part);
    const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t width = p_.Width();
    int64_t calls = p_.planes * CeilDivide(columns, p_.kernel.panel);
    for (int64_t t = 0; t < tiles; ++t) {
      scratch.a_rows[t] = v + t * p_.VRow();
      scratch.c_rows[t] = m + t * width;
    }
    for (int64_t f = 0; f < p_.planes; ++f) {
      for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
        // M has room for whole vectors, and so all of them are written.
        const int64_t count =
            RoundUp(std::min(p_.kernel.panel, columns - j), p_.kernel.lanes);
        list->Fetch(calls--);
        p_.kernel.by_rows(tiles, count, depth, scratch.a_rows, f * p_.VPlane(),
                          u + f * p_.UPlane() + depth * j, scratch.c_rows,
                          f * p_.MPlane() + j, chunk > 0);
      }
    }
  }

  void TransformResult(int64_t group, int64_t block, int64_t part,
                       const float* m) const {
    const int64_t channel = group * p_.columns.total + p_.columns.Begin(part);
    Element* data = result_ + channel * p_.tiling.result.channel_step;
    const Ending ending = EndingOf(group, part);
    const int64_t first = p_.blocks.Begin(block);
    for (int64_t t = 0; t < p_.blocks.Size(block); ++t) {
      transforms_.output(m + t * p_.Width(), p_.MPlane(), p_.columns.Size(part),
                         ending,
                         p_.tiling.ResultTile(p_.tiling.At(first + t), data));
    }
  }

  const ConvShape& shape_;
  const Plan p_;
  const ImageTransforms<Element>& transforms_;
  const Element* source_;
  const Element* filter_;
  Element* result_;
  const Element* bias_;
  Activation activation_;
  float* shared_;
  char* scratch_;
  int64_t scratch_bytes_;
};

}  // namespace

Work ImagePassWork(int outputs, const Problem& problem, Isa isa) {
  const Plan p(outputs, problem, isa);
  const double planes = static_cast<double>(p.planes * p.groups);
  const double tiles = static_cast<double>(p.tiles);
  const double depth = static_cast<double>(p.outer_taps * p.channels);
  const double columns =
      static_cast<double>(RoundUp(p.columns.total, p.kernel.lanes));
  const double makings =
      p.fused ? 2 : static_cast<double>(CeilDivide(p.blocks.count, p.batch));
  const double v =
      kMacsPerV +
      (p.fused ? 0 : kMacsPerSharedV * static_cast<double>(p.columns.count));
  Work work;
  work.shared_bytes = 4 * SharedFloats(p);
  work.worker_bytes = Scratch::Bytes(p);
  work.fits = FrequencyFloats(p) <= 2 * kMaxSharedFloats;
  work.macs = planes * (ProductMacs(tiles * depth * columns, p.chunks.size) +
                        tiles * depth * v + tiles * columns * kMacsPerM +
                        makings * depth * columns * kMacsPerU);
  return work;
}

template <typename Element>
void RunImagePass(int outputs, const Problem& problem, const ConvArgs& args,
                  Context* ctx) {
  ImagePass<Element>(outputs, problem, args, ctx).Run(ctx);
}

#define KCONV_RUN(Element)                                                  \
  template void RunImagePass<Element>(int, const Problem&, const ConvArgs&, \
                                      Context*);
KCONV_RUN(float)
KCONV_RUN(BFloat16)
KCONV_RUN(Float16)
#undef KCONV_RUN

}  // namespace kconv::winograd
