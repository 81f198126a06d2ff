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
    Cut(problem);
  }

  void Cut(const Problem& problem);

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

void Plan::Cut(const Problem& problem) {
  (void)problem;
  const int64_t depth = outer_taps * channels;
  const int64_t per_tile = planes * RoundUp(channels, kLineFloats) * outer_taps;
  const int64_t l2 = CacheFloats();
  // Fused: V and M of a block in three quarters of the cache.
  int64_t fit = l2 * 3 / 4 / (per_tile + planes * Width());
  fit = fit / kTileUnit * kTileUnit;
  fused = fit >= 2 * kTileUnit && tiles >= 8 * kTileUnit;
  if (const char* e = getenv("KW_FUSED")) fused = atoi(e) && fit > 0;
  if (fused) {
    block = std::min<int64_t>(fit, 48);
    if (const char* e = getenv("KW_T")) block = atoi(e);
    chunks = Split(channels, CeilDivide(channels, 256), kLineFloats);
    blocks = Split(tiles, CeilDivide(tiles, block), 1);
    blocks.size = block;
    blocks.count = CeilDivide(tiles, block);
    shared = batch = 1;
    return;
  }
  int64_t chunk = kChunk;
  if (const char* e = getenv("KW_C")) chunk = atoi(e);
  chunks = Split(channels, CeilDivide(channels, chunk), kLineFloats);
  block = 48;
  if (const char* e = getenv("KW_T")) block = atoi(e);
  block = std::min(block, RoundUp(tiles, 1));
  blocks = Split(tiles, 1, 1);
  blocks.size = block;
  blocks.count = CeilDivide(tiles, block);
  int64_t budget = kSharedBytes;
  if (const char* e = getenv("KW_S")) budget = atol(e) << 20;
  shared = std::clamp<int64_t>(budget / 4 / (groups * ChunkCount() * VSize()),
                               1, blocks.count);
  batch = shared;
  if (const char* e = getenv("KW_B")) batch = atoi(e);
  while (batch > 1 &&
         groups * columns.count * CeilDivide(shared, batch) < kWantedTasks &&
         batch * block > 96) {
    batch = CeilDivide(batch, 2);
  }
  (void)depth;
}

// The scratch of one worker.
struct Scratch {
  float* v;
  float* u;
  float* m;
  float* taps;
  const float** a_rows;
  float** c_rows;

  Scratch(const Plan& p, Arena* arena) {
    v = p.fused ? arena->Take(p.ChunkCount() * p.VSize()) : nullptr;
    u = p.fused ? nullptr : arena->Take(p.USize());
    m = arena->Take(p.batch * p.MSize());
    taps = arena->Take(p.TapCount() * p.TapSize());
    a_rows = arena->Take<const float*>(p.block);
    c_rows = arena->Take<float*>(p.block);
  }

  static int64_t Bytes(const Plan& p) {
    Arena arena(nullptr);
    Scratch scratch(p, &arena);
    return arena.Bytes();
  }
};

int64_t SharedFloats(const Plan& p) {
  return p.fused ? p.groups * p.columns.count * p.ChunkCount() * p.USize()
                 : p.groups * p.shared * p.ChunkCount() * p.VSize();
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
        shared_(static_cast<float*>(ctx->workspace)),
        scratch_(static_cast<char*>(ctx->workspace) + 4 * SharedFloats(p_)),
        scratch_bytes_(Scratch::Bytes(p_)) {}

  void Run(Context* ctx) {
    ctx->isa_ran = p_.transforms.isa;
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
          for (int64_t i = begin; i < end; ++i) {
            const int64_t group = i % p_.groups, block = i / p_.groups;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
              TransformSource(group, block, chunk,
                              scratch.v + chunk * p_.VSize());
            }
            for (int64_t part = 0; part < parts; ++part) {
              for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                Multiply(block, part, chunk, scratch.v + chunk * p_.VSize(),
                         shared_ + ((group * parts + part) * chunks + chunk) *
                                       p_.USize(),
                         scratch, scratch.m);
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
            for (int64_t i = begin; i < end; ++i) {
              const int64_t part = i % parts, group = i / parts % p_.groups;
              const int64_t from = i / parts / p_.groups * p_.batch;
              const int64_t until = std::min(from + p_.batch, some);
              for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                TransformFilter(group, part, chunk, scratch, scratch.u);
                for (int64_t b = from; b < until; ++b) {
                  const int64_t at = (b * p_.groups + group) * chunks + chunk;
                  Multiply(first + b, part, chunk, shared_ + at * p_.VSize(),
                           scratch.u, scratch,
                           scratch.m + (b - from) * p_.MSize());
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
    for (int64_t t = 0; t < p_.blocks.Size(block); ++t) {
      transforms_.input(
          p_.tiling.SourceTile(p_.tiling.At(first + t), tap, data),
          p_.chunks.Size(part), v + t * p_.VRow(), p_.VPlane());
    }
  }

  // U of a chunk of channels, for a block of columns.
  void TransformFilter(int64_t group, int64_t part, int64_t chunk,
                       const Scratch& scratch, float* u) const {
    const int64_t column = p_.columns.Begin(part);
    const int64_t columns = p_.columns.Size(part);
    const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t channel = p_.chunks.Begin(chunk % p_.chunks.count);
    const int64_t taps = p_.transforms.taps;
    const bool is_2d = p_.tiling.dims() == 2;
    const int64_t column_step = TapStep(shape_, p_.tiling.column_axis);
    const int64_t row_step = is_2d ? TapStep(shape_, p_.tiling.row_axis) : 0;
    const int64_t o = shape_.out_channels;

    // The filter's element for the first row and column of U's chunk.
    int64_t offset = group * shape_.GroupOutChannels();
    offset += p_.backwards ? channel + column * o : column + channel * o;
    offset += p_.tiling.OuterTapOffset(shape_, chunk / p_.chunks.count);

    Tile<const float> tile = {};
    tile.channel_stride = 1;
    tile.row_end = is_2d ? static_cast<int>(taps) : 1;
    tile.column_end = static_cast<int>(taps);
    if constexpr (std::is_same_v<Element, float>) {
      if (!p_.backwards) {
        tile.row_stride = row_step;
        tile.column_stride = column_step;
        for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
          const int64_t count = std::min(p_.kernel.panel, columns - j);
          const int64_t width = RoundUp(count, p_.kernel.lanes);
          for (int64_t c = 0; c < depth; ++c) {
            tile.data = filter_ + offset + c * o + j;
            p_.transforms.filter(tile, count, u + depth * j + c * width,
                                 p_.UPlane());
          }
        }
        return;
      }
    }
    // Each tap in panels of floats first. Backwards the filter is rotated: the
    // panels of the taps are taken in the opposite order.
    const int64_t rows = tile.row_end;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < taps; ++j) {
        const int64_t to =
            p_.backwards ? (rows - 1 - i) * taps + taps - 1 - j : i * taps + j;
        PackPanels(p_.kernel, {0, depth, depth}, columns,
                   filter_ + offset + i * row_step + j * column_step,
                   p_.backwards ? 1 : o, p_.backwards ? o : 1,
                   scratch.taps + to * p_.TapSize());
      }
    }
    tile.row_stride = taps * p_.TapSize();
    tile.column_stride = p_.TapSize();
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
                const float* u, const Scratch& scratch, float* m) const {
    const int64_t tiles = p_.blocks.Size(block);
    const int64_t columns = p_.columns.Size(part);
    const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t width = p_.Width();
    for (int64_t f = 0; f < p_.planes; ++f) {
      for (int64_t t = 0; t < tiles; ++t) {
        scratch.a_rows[t] = v + t * p_.VRow();
        scratch.c_rows[t] = m + t * width;
      }
      for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
        // M has room for whole vectors, and so all of them are written.
        const int64_t count =
            RoundUp(std::min(p_.kernel.panel, columns - j), p_.kernel.lanes);
        p_.kernel.by_rows(tiles, count, depth, scratch.a_rows, u + depth * j,
                          scratch.c_rows, j, chunk > 0);
      }
      v += p_.VPlane();
      u += p_.UPlane();
      m += p_.MPlane();
    }
  }

  void TransformResult(int64_t group, int64_t block, int64_t part,
                       const float* m) const {
    const int64_t channel = group * p_.columns.total + p_.columns.Begin(part);
    Element* data = result_ + channel * p_.tiling.result.channel_step;
    const int64_t first = p_.blocks.Begin(block);
    for (int64_t t = 0; t < p_.blocks.Size(block); ++t) {
      transforms_.output(m + t * p_.Width(), p_.MPlane(), p_.columns.Size(part),
                         false,
                         p_.tiling.ResultTile(p_.tiling.At(first + t), data));
    }
  }

  const ConvShape& shape_;
  const Plan p_;
  const ImageTransforms<Element>& transforms_;
  const Element* source_;
  const Element* filter_;
  Element* result_;
  float* shared_;
  char* scratch_;
  int64_t scratch_bytes_;
};

}  // namespace

int64_t ImagePassBytes(int outputs, const Problem& problem, Isa isa,
                       int threads) {
  const Plan plan(outputs, problem, isa);
  return 4 * SharedFloats(plan) + threads * Scratch::Bytes(plan);
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
