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

#include <algorithm>

#include "algorithms/winograd/blocking.h"
#include "algorithms/winograd/fetch.h"
#include "algorithms/winograd/filter.h"
#include "algorithms/winograd/image_plan.h"
#include "algorithms/winograd/source.h"
#include "algorithms/winograd/tiling.h"
#include "algorithms/winograd/transforms.h"
#include "algorithms/winograd/winograd.h"

namespace kconv::winograd {
namespace {

// The scratch of one worker.
struct Scratch {
  float* v;
  float* u;
  float* m;
  float* taps;
  const float** a_rows;
  float** c_rows;
  const void** lines;

  Scratch(const ImagePlan& p, Arena* arena) {
    v = p.fused ? arena->Take(p.ChunkCount() * p.VSize()) : nullptr;
    u = p.fused ? nullptr : arena->Take(p.USize());
    m = arena->Take(p.batch * p.MSize());
    taps = arena->Take(FilterTransformFloats(p));
    a_rows = arena->Take<const float*>(p.block);
    c_rows = arena->Take<float*>(p.block);
    lines = arena->Take<const void*>(FetchList::kRoom);
  }

  static int64_t Bytes(const ImagePlan& p) {
    Arena arena(nullptr);
    Scratch scratch(p, &arena);
    return arena.Bytes();
  }
};

// The bias of each block of columns, in whole vectors; zeros for none.
int64_t BiasFloats(const ImagePlan& p) {
  return p.finishes
             ? RoundUp(p.groups * p.columns.count * p.Width(), kLineFloats)
             : 0;
}

// U of the fused way, V of the other.
int64_t FrequencyFloats(const ImagePlan& p) {
  return p.fused ? p.groups * p.columns.count * p.ChunkCount() * p.USize()
                 : p.groups * p.shared * p.ChunkCount() * p.VSize();
}

int64_t SharedFloats(const ImagePlan& p) {
  return FrequencyFloats(p) + BiasFloats(p);
}

template <typename Element>
class ImagePass {
 public:
  ImagePass(int outputs, const Problem& problem, const ConvArgs& args,
            Context* ctx)
      : p_(outputs, problem, ctx->isa),
        transforms_(TransformsOf<Element>(p_.transforms)),
        source_(static_cast<const Element*>(p_.backwards ? args.output
                                                         : args.input)),
        filter_(p_, problem.shape, static_cast<const Element*>(args.filter),
                static_cast<const float*>(args.prepared)),
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
                         filter_.Run(part / parts, part % parts, chunk,
                                     scratch.taps, shared_ + i * p_.USize());
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
                filter_.Run(group, part, chunk, scratch.taps, scratch.u);
                for (int64_t b = from; b < until; ++b) {
                  const int64_t at = (b * p_.groups + group) * chunks + chunk;
                  list.Clear();
                  if (chunk + 1 == chunks) {
                    AddResult(group, first + b, part, &list);
                  } else if (b == from) {
                    filter_.Fetch(group, part, chunk + 1, &list);
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
    TransformTiles(p_.tiling, transforms_.input, tap, p_.blocks.Begin(block),
                   p_.blocks.Size(block), p_.chunks.Size(part), data, v,
                   p_.VRow(), p_.VPlane());
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

  const ImagePlan p_;
  const ImageTransforms<Element>& transforms_;
  const Element* source_;
  const FilterTransform<Element> filter_;
  Element* result_;
  const Element* bias_;
  Activation activation_;
  float* shared_;
  char* scratch_;
  int64_t scratch_bytes_;
};

}  // namespace

Work ImagePassWork(int outputs, const Problem& problem, Isa isa) {
  const ImagePlan p(outputs, problem, isa);
  const double planes = static_cast<double>(p.planes * p.groups);
  const double tiles = static_cast<double>(p.tiles);
  const double depth =
      static_cast<double>(p.outer_taps * RoundUp(p.channels, p.kernel.lanes));
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
