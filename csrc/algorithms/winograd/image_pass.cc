// Forward and input gradient.
//
// A pass multiplies, for each frequency, V [tiles x channels] by U [channels x
// columns]; columns are the channels of the result. With strides, in the input
// gradient, each variant has a U of its own. It runs in one of two ways.
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
  return p.fused ? p.sets * p.parts * p.ChunkCount() * p.USize()
                 : p.sets * p.shared * p.ChunkCount() * p.VSize();
}

int64_t SharedFloats(const ImagePlan& p) {
  return FrequencyFloats(p) + BiasFloats(p);
}

template <typename Element>
class ImagePass {
  using Piece = ImagePlan::Piece;

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
    const int64_t parts = p_.parts;
    ctx->ParallelFor(
        p_.sets * parts * chunks,
        SecondsOf(1, static_cast<double>(p_.columns.size)),
        [&](int64_t begin, int64_t end, int worker) {
          const Scratch scratch = ScratchOf(worker);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t chunk = i % chunks, part = i / chunks;
            const Piece piece = p_.PieceAt(part / parts, part % parts);
            if (!p_.Meets(piece, chunk)) continue;
            filter_.Run(piece, chunk, scratch.taps, shared_ + i * p_.USize());
          }
        });
    ctx->ParallelFor(
        p_.sets * p_.blocks.count,
        SecondsOf(static_cast<double>(p_.block),
                  static_cast<double>(p_.columns.size * parts)),
        [&](int64_t begin, int64_t end, int worker) {
          const Scratch scratch = ScratchOf(worker);
          FetchList list(scratch.lines);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t set = i % p_.sets, block = i / p_.sets;
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
              TransformSource(set, block, chunk,
                              scratch.v + chunk * p_.VSize());
            }
            for (int64_t part = 0; part < parts; ++part) {
              const Piece piece = p_.PieceAt(set, part);
              for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                const int64_t product = part * chunks + chunk;
                list.Clear();
                if (chunk + 1 == chunks) AddResult(piece, block, &list);
                if (i + 1 < end) {
                  AddSource((i + 1) % p_.sets, (i + 1) / p_.sets, product,
                            parts * chunks, &list);
                }
                Multiply(
                    piece, block, chunk, scratch.v + chunk * p_.VSize(),
                    shared_ + (set * parts * chunks + product) * p_.USize(),
                    scratch, scratch.m, &list);
              }
              TransformResult(piece, block, scratch.m);
            }
          }
        });
  }

  void RunShared(Context* ctx) {
    const int64_t chunks = p_.ChunkCount();
    const int64_t parts = p_.parts;
    for (int64_t first = 0; first < p_.blocks.count; first += p_.shared) {
      const int64_t some = std::min(p_.shared, p_.blocks.count - first);
      ctx->ParallelFor(p_.sets * some * chunks,
                       SecondsOf(static_cast<double>(p_.block), 1),
                       [&](int64_t begin, int64_t end, int) {
                         for (int64_t i = begin; i < end; ++i) {
                           const int64_t set = i / chunks % p_.sets;
                           const int64_t block = i / chunks / p_.sets;
                           TransformSource(set, first + block, i % chunks,
                                           shared_ + i * p_.VSize());
                         }
                       });
      const int64_t batches = CeilDivide(some, p_.batch);
      ctx->ParallelFor(
          p_.sets * batches * parts,
          SecondsOf(static_cast<double>(p_.block * p_.batch),
                    static_cast<double>(p_.columns.size)),
          [&](int64_t begin, int64_t end, int worker) {
            const Scratch scratch = ScratchOf(worker);
            FetchList list(scratch.lines);
            for (int64_t i = begin; i < end; ++i) {
              const int64_t set = i / parts % p_.sets;
              const Piece piece = p_.PieceAt(set, i % parts);
              const int64_t from = i / parts / p_.sets * p_.batch;
              const int64_t until = std::min(from + p_.batch, some);
              for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                if (!p_.Meets(piece, chunk)) continue;
                filter_.Run(piece, chunk, scratch.taps, scratch.u);
                for (int64_t b = from; b < until; ++b) {
                  const int64_t at = (b * p_.sets + set) * chunks + chunk;
                  list.Clear();
                  if (chunk + 1 == chunks) {
                    AddResult(piece, first + b, &list);
                  } else if (b == from && p_.Meets(piece, chunk + 1)) {
                    filter_.Fetch(piece, chunk + 1, &list);
                  }
                  Multiply(piece, first + b, chunk, shared_ + at * p_.VSize(),
                           scratch.u, scratch,
                           scratch.m + (b - from) * p_.MSize(), &list);
                }
              }
              for (int64_t b = from; b < until; ++b) {
                TransformResult(piece, first + b,
                                scratch.m + (b - from) * p_.MSize());
              }
            }
          });
    }
  }

  // V of a block of tiles, for a chunk of channels.
  void TransformSource(int64_t set, int64_t block, int64_t chunk,
                       float* v) const {
    const Piece piece = p_.PieceAt(set, 0);
    const int64_t part = chunk % p_.chunks.count;
    const int64_t channel = piece.group * p_.channels + p_.chunks.Begin(part);
    const Element* data = source_ + channel * p_.tiling.source.channel_step;
    TransformTiles(p_.tiling, transforms_.input, piece.variant,
                   p_.OuterTap(chunk), p_.blocks.Begin(block),
                   p_.blocks.Size(block), p_.chunks.Size(part), data, v,
                   p_.VRow(), p_.VPlane());
  }

  // The first result of a piece's channels.
  Element* ResultOf(const Piece& piece) const {
    const int64_t channel =
        piece.group * p_.columns.total + p_.columns.Begin(piece.part);
    return result_ + channel * p_.tiling.result.channel_step;
  }

  // What TransformResult will write.
  void AddResult(const Piece& piece, int64_t block, FetchList* list) const {
    const Element* data = ResultOf(piece);
    const int64_t first = p_.blocks.Begin(block);
    for (int64_t t = 0; t < p_.blocks.Size(block); ++t) {
      AddTile(
          p_.tiling.ResultTile(p_.tiling.At(piece.variant, first + t), data),
          p_.columns.Size(piece.part), list);
    }
  }

  // Part `part` of `parts` of what TransformSource will read.
  void AddSource(int64_t set, int64_t block, int64_t part, int64_t parts,
                 FetchList* list) const {
    const Piece piece = p_.PieceAt(set, 0);
    const Element* data =
        source_ + piece.group * p_.channels * p_.tiling.source.channel_step;
    const int64_t first = p_.blocks.Begin(block);
    const int64_t images = p_.tiling.SourceImages();
    const int64_t tiles = p_.blocks.Size(block) * images;
    for (int64_t t = tiles * part / parts; t < tiles * (part + 1) / parts;
         ++t) {
      const Tiling::Place place =
          p_.tiling.At(piece.variant, first + t / images);
      AddTile(p_.tiling.Centre(p_.tiling.SourceTile(place, t % images, data)),
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
  void Multiply(const Piece& piece, int64_t block, int64_t chunk,
                const float* v, const float* u, const Scratch& scratch,
                float* m, FetchList* list) const {
    const Tiling& tiling = p_.tiling;
    const int64_t tiles = p_.blocks.Size(block);
    const int64_t columns = p_.columns.Size(piece.part);
    const int64_t depth = p_.chunks.Size(chunk % p_.chunks.count);
    const int64_t width = p_.Width();
    const Tiling::Extent met =
        tiling.Frequencies(piece.variant, p_.OuterTap(chunk));
    if (chunk == 0) {
      // What no outer tap adds to.
      tiling.VisitPlanes(met, false, [&](int64_t f) {
        std::fill_n(m + f * p_.MPlane(), tiles * width, 0.0f);
      });
    }
    for (int64_t t = 0; t < tiles; ++t) {
      scratch.a_rows[t] = v + t * p_.VRow();
      scratch.c_rows[t] = m + t * width;
    }
    int64_t calls =
        met.rows * met.columns * CeilDivide(columns, p_.kernel.panel);
    tiling.VisitPlanes(met, true, [&](int64_t f) {
      for (int64_t j = 0; j < columns; j += p_.kernel.panel) {
        // M has room for whole vectors, and so all of them are written.
        const int64_t count =
            RoundUp(std::min(p_.kernel.panel, columns - j), p_.kernel.lanes);
        list->Fetch(calls--);
        p_.kernel.by_rows(tiles, count, depth, scratch.a_rows, f * p_.VPlane(),
                          u + f * p_.UPlane() + depth * j, scratch.c_rows,
                          f * p_.MPlane() + j, chunk > 0);
      }
    });
  }

  void TransformResult(const Piece& piece, int64_t block,
                       const float* m) const {
    Element* data = ResultOf(piece);
    const Ending ending = EndingOf(piece.group, piece.part);
    const int64_t first = p_.blocks.Begin(block);
    for (int64_t t = 0; t < p_.blocks.Size(block); ++t) {
      transforms_.output(
          m + t * p_.Width(), p_.MPlane(), p_.columns.Size(piece.part), ending,
          p_.tiling.ResultTile(p_.tiling.At(piece.variant, first + t), data));
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
  const double planes = static_cast<double>(p.planes);
  const double groups = static_cast<double>(p.groups);
  const double variants = static_cast<double>(p.variants);
  const double tiles = static_cast<double>(p.tiles);
  const double channels =
      static_cast<double>(RoundUp(p.channels, p.kernel.lanes));
  const double columns =
      static_cast<double>(RoundUp(p.columns.total, p.kernel.lanes));
  // Of every tile and channel.
  const double products = p.tiling.FrequencyCount();
  const double makings =
      p.fused ? 2 : static_cast<double>(CeilDivide(p.blocks.count, p.batch));
  const double v =
      kMacsPerV +
      (p.fused ? 0 : kMacsPerSharedV * static_cast<double>(p.parts));
  Work work;
  work.shared_bytes = 4 * SharedFloats(p);
  work.worker_bytes = Scratch::Bytes(p);
  work.fits = FrequencyFloats(p) <= 2 * kMaxSharedFloats;
  work.macs =
      groups *
      (ProductMacs(products * tiles * channels * columns, p.chunks.size) +
       planes * static_cast<double>(p.sets / p.groups * p.outer_taps) * tiles *
           channels * v +
       planes * variants * tiles * columns * kMacsPerM +
       makings * products * channels * columns * kMacsPerU);
  if (!p.fused) {
    work.macs += makings * kMacsPerTapRead *
                 static_cast<double>(problem.shape.FilterElements());
  }
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
