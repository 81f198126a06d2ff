// Forward, input gradient and filter gradient of groups of many channels.
//
// For each frequency the spectra of tiles and filter are two complex matrices,
// whose product
//
//   Y = X conj(W):  Yr = Xr Wr + Xi Wi,  Yi = Xi Wr - Xr Wi
//
// is one real product of twice the depth: of [Xr Xi] and of [Xi -Xr] by
// [Wr; Wi]. X is kept as [Xr Xi -Xr], so that both lie in it. In the filter
// gradient the gradient of the output takes the place of the filter, and the
// sum runs over the tiles.
//
// The transforms of a block of tiles, those of a block of filters, their
// products and the transforms back follow one another, each cut into tasks for
// all threads.

#include <algorithm>

#include "algorithms/fft/call.h"
#include "algorithms/fft/fft.h"
#include "algorithms/fft/operand.h"
#include "algorithms/fft/transforms.h"
#include "gemm/gemm.h"

namespace kconv::fft {
namespace {

template <typename Sum>
struct Shared {
  Sum* v;
  Sum* u;
  Sum* m;
  const Sum** a_rows;
  Sum** c_rows;

  Shared(const Plan& p, bool is_filter, Arena* arena) {
    const int64_t rows = 2 * (is_filter ? p.chunks.size : p.blocks.size);
    v = arena->Take<Sum>(p.planes * p.VPlane());
    u = arena->Take<Sum>(p.planes * p.UPlane());
    m = arena->Take<Sum>(p.planes * p.MPlane());
    a_rows = arena->Take<const Sum*>(rows);
    c_rows = arena->Take<Sum*>(rows);
  }

  static int64_t Bytes(const Plan& p, bool is_filter) {
    Arena arena(nullptr);
    Shared shared(p, is_filter, &arena);
    return arena.Bytes();
  }
};

template <typename Element>
class WithinGroups : Call<Element> {
  using typename Call<Element>::Sum;
  using Call<Element>::IsBackwards, Call<Element>::IsFilter;
  using Call<Element>::ctx_, Call<Element>::filter_, Call<Element>::grid_,
      Call<Element>::output_, Call<Element>::p_, Call<Element>::scale_,
      Call<Element>::taps_, Call<Element>::transforms_;

 public:
  WithinGroups(const Problem& problem, const Plan& plan, const ConvArgs& args,
               Context* ctx)
      : Call<Element>(problem, plan, args, ctx),
        kernel_(GemmKernelFor<Sum>(ctx->isa)),
        arena_(ctx->workspace),
        shared_(plan, IsFilter(), &arena_),
        scratch_(arena_.Take<char>(0)),
        scratch_bytes_(WorkerBytes(plan)) {}

  static int64_t WorkerBytes(const Plan& p) {
    return RoundUp(
        ScratchSize(Call<Element>::GridFor(p), p.lanes) * int64_t{sizeof(Sum)},
        64);
  }

  void Run() {
    for (int64_t group = 0; group < p_.groups; ++group) {
      if (IsFilter()) {
        RunFilter(group);
      } else {
        RunImage(group);
      }
    }
  }

 private:
  void RunImage(int64_t group) {
    const bool keeps_v = p_.blocks.count * p_.chunks.count == 1;
    const bool keeps_u = p_.chunks.count == 1;
    for (int64_t c = 0; c < p_.columns.count; ++c) {
      for (int64_t b = 0; b < p_.blocks.count; ++b) {
        for (int64_t k = 0; k < p_.chunks.count; ++k) {
          if (c == 0 || !keeps_v) TransformSource(group, b, k);
          if (b == 0 || !keeps_u) TransformFilter(group, k, c);
          const int64_t tiles = p_.blocks.Size(b), depth = p_.chunks.Size(k);
          for (int64_t i = 0; i < 2 * tiles; ++i) {
            shared_.a_rows[i] =
                shared_.v + i / 2 * 3 * p_.chunks.size + i % 2 * depth;
            shared_.c_rows[i] = shared_.m + i * p_.Width();
          }
          Multiply(2 * tiles, 2 * depth, c, k > 0);
        }
        TransformResult(group, b, c);
      }
    }
  }

  void RunFilter(int64_t group) {
    const bool keeps_v = p_.blocks.count * p_.chunks.count == 1;
    const bool keeps_u = p_.blocks.count == 1;
    for (int64_t c = 0; c < p_.columns.count; ++c) {
      for (int64_t k = 0; k < p_.chunks.count; ++k) {
        for (int64_t b = 0; b < p_.blocks.count; ++b) {
          if (c == 0 || !keeps_v) TransformSource(group, b, k);
          if (k == 0 || !keeps_u) TransformGradient(group, b, c);
          SumTiles(p_.blocks.Size(b), p_.chunks.Size(k), c, b > 0);
        }
        if (p_.blocks.count == 0) SumTiles(0, p_.chunks.Size(k), c, false);
        TransformTaps(group, k, c);
      }
    }
  }

  Sum* ScratchOf(int worker) const {
    return reinterpret_cast<Sum*>(scratch_ + worker * scratch_bytes_);
  }

  // Calls body(item, vector, scratch), for all vectors of so many lanes.
  template <typename Body>
  void ForVectors(int64_t items, int64_t channels, const Body& body) {
    const int64_t vectors = CeilDivide(channels, p_.lanes);
    const double points = static_cast<double>(grid_.n[0] * grid_.n[1]);
    ctx_->ParallelFor(
        items * vectors,
        20 * points * static_cast<double>(p_.lanes) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int worker) {
          for (int64_t i = begin; i < end; ++i) {
            body(i / vectors, i % vectors * p_.lanes, ScratchOf(worker));
          }
        });
  }

  // The tiles that are read: of the input or, in the input gradient, of the
  // output's.
  void TransformSource(int64_t group, int64_t block, int64_t chunk) {
    // The filter gradient reads the input as the forward pass does.
    const Operand<Element>& image = this->Source();
    const int64_t tiles = p_.blocks.Size(block);
    const int64_t depth = p_.chunks.Size(chunk);
    const int64_t first = group * p_.sides.sources + p_.chunks.Begin(chunk);
    ForVectors(tiles, depth, [&](int64_t i, int64_t k, Sum* scratch) {
      const TilePlaces places(p_.tiling, p_.blocks.Begin(block) + i);
      const int64_t lanes = std::min(p_.lanes, depth - k);
      const Tile<Element> tile = image.At(
          image.data + places.image * image.image + (first + k) * image.channel,
          places.read[0], places.read[1], image.channel, lanes);
      Spectrum<Sum> to;
      to.plane = p_.VPlane();
      to.lanes = lanes;
      to.negates = true;
      if (IsFilter()) {
        to.data = shared_.v + i * p_.chunks.size + k;
        to.component = tiles * p_.chunks.size;
      } else {
        to.data = shared_.v + i * 3 * p_.chunks.size + k;
        to.component = depth;
      }
      transforms_.forward(grid_, tile, scratch, to);
    });
  }

  // Where a row of panels `depth` deep has the lanes from a column on.
  Spectrum<Sum> PanelAt(int64_t depth, int64_t row, int64_t column,
                        int64_t columns) const {
    const int64_t panel = column / kernel_.panel * kernel_.panel;
    const int64_t width =
        RoundUp(std::min(kernel_.panel, columns - panel), p_.lanes);
    Spectrum<Sum> to;
    to.data = shared_.u + 2 * depth * panel + row * width + column - panel;
    to.plane = p_.UPlane();
    to.component = depth * width;
    to.lanes = p_.lanes;
    to.negates = false;
    return to;
  }

  void TransformFilter(int64_t group, int64_t chunk, int64_t part) {
    const int64_t depth = p_.chunks.Size(chunk);
    const int64_t columns = p_.columns.Size(part);
    ForVectors(depth, columns, [&](int64_t i, int64_t j, Sum* scratch) {
      const int64_t source = p_.chunks.Begin(chunk) + i;
      const int64_t result = p_.columns.Begin(part) + j;
      const int64_t o = filter_.channel;
      Element* first =
          filter_.data + (IsBackwards()
                              ? group * p_.sides.sources + source + result * o
                              : group * p_.sides.results + result + source * o);
      const Tile<Element> tile =
          filter_.At(first, taps_[0], taps_[1], IsBackwards() ? o : 1,
                     std::min(p_.lanes, columns - j));
      transforms_.forward(grid_, tile, scratch, PanelAt(depth, i, j, columns));
    });
  }

  void TransformGradient(int64_t group, int64_t block, int64_t part) {
    const int64_t tiles = p_.blocks.Size(block);
    const int64_t columns = p_.columns.Size(part);
    const int64_t first = group * p_.sides.results + p_.columns.Begin(part);
    ForVectors(tiles, columns, [&](int64_t i, int64_t j, Sum* scratch) {
      const TilePlaces places(p_.tiling, p_.blocks.Begin(block) + i);
      const Tile<Element> tile =
          output_.At(output_.data + places.image * output_.image +
                         (first + j) * output_.channel,
                     places.written[0], places.written[1], output_.channel,
                     std::min(p_.lanes, columns - j));
      transforms_.forward(grid_, tile, scratch, PanelAt(tiles, i, j, columns));
    });
  }

  template <typename Body>
  void ForPlanes(int64_t rows, int64_t columns, int64_t depth,
                 const Body& body) {
    ctx_->ParallelFor(
        p_.planes, static_cast<double>(rows * columns * depth) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int) {
          for (int64_t f = begin; f < end; ++f) {
            for (int64_t j = 0; j < columns; j += kernel_.panel) {
              body(f, j,
                   RoundUp(std::min(kernel_.panel, columns - j), p_.lanes));
            }
          }
        });
  }

  void Multiply(int64_t rows, int64_t depth, int64_t part, bool accumulate) {
    ForPlanes(rows, p_.columns.Size(part), depth,
              [&](int64_t f, int64_t j, int64_t width) {
                kernel_.by_rows(
                    rows, width, depth, shared_.a_rows, f * p_.VPlane(),
                    shared_.u + f * p_.UPlane() + depth * j, shared_.c_rows,
                    f * p_.MPlane() + j, accumulate);
              });
  }

  void SumTiles(int64_t tiles, int64_t channels, int64_t part,
                bool accumulate) {
    for (int64_t i = 0; i < 2 * channels; ++i) {
      shared_.c_rows[i] = shared_.m + i * p_.Width();
    }
    ForPlanes(
        2 * channels, p_.columns.Size(part), 2 * tiles,
        [&](int64_t f, int64_t j, int64_t width) {
          for (int64_t half = 0; half < 2; ++half) {
            kernel_.by_columns(
                channels, width, 2 * tiles,
                shared_.v + f * p_.VPlane() + half * tiles * p_.chunks.size,
                p_.chunks.size, shared_.u + f * p_.UPlane() + 2 * tiles * j,
                shared_.c_rows + half * channels, f * p_.MPlane() + j,
                accumulate);
          }
        });
  }

  void TransformResult(int64_t group, int64_t block, int64_t part) {
    const Operand<Element>& image = this->Result();
    const int64_t columns = p_.columns.Size(part);
    const int64_t first = group * p_.sides.results + p_.columns.Begin(part);
    ForVectors(p_.blocks.Size(block), columns,
               [&](int64_t i, int64_t j, Sum* scratch) {
                 const TilePlaces places(p_.tiling, p_.blocks.Begin(block) + i);
                 const int64_t lanes = std::min(p_.lanes, columns - j);
                 const Tile<Element> tile =
                     image.At(image.data + places.image * image.image +
                                  (first + j) * image.channel,
                              places.written[0], places.written[1],
                              image.channel, lanes);
                 alignas(64) Sum bias[kMaxLanes];
                 transforms_.backward(grid_,
                                      {shared_.m + 2 * i * p_.Width() + j,
                                       p_.MPlane(), p_.Width(), lanes, false},
                                      this->EndingOf(first + j, 1, lanes, bias),
                                      scratch, tile);
               });
  }

  void TransformTaps(int64_t group, int64_t chunk, int64_t part) {
    const int64_t channels = p_.chunks.Size(chunk);
    const int64_t columns = p_.columns.Size(part);
    ForVectors(channels, columns, [&](int64_t i, int64_t j, Sum* scratch) {
      const int64_t lanes = std::min(p_.lanes, columns - j);
      Element* first = filter_.data + group * p_.sides.results +
                       p_.columns.Begin(part) + j +
                       (p_.chunks.Begin(chunk) + i) * filter_.channel;
      transforms_.backward(grid_,
                           {shared_.m + i * p_.Width() + j, p_.MPlane(),
                            channels * p_.Width(), lanes, false},
                           {scale_}, scratch,
                           filter_.At(first, taps_[0], taps_[1], 1, lanes));
    });
  }

  const GemmKernel<Sum>& kernel_;
  Arena arena_;
  const Shared<Sum> shared_;
  char* scratch_;
  const int64_t scratch_bytes_;
};

}  // namespace

template <typename Element>
Bytes WithinGroupsBytes(const Problem& problem, const Plan& plan, Isa) {
  return {Shared<SumType<Element>>::Bytes(
              plan, problem.pass == Pass::kFilterGradient),
          WithinGroups<Element>::WorkerBytes(plan)};
}

template <typename Element>
void RunWithinGroups(const Problem& problem, const Plan& plan,
                     const ConvArgs& args, Context* ctx) {
  WithinGroups<Element>(problem, plan, args, ctx).Run();
}

#define KCONV_RUN(Element)                                                     \
  template Bytes WithinGroupsBytes<Element>(const Problem&, const Plan&, Isa); \
  template void RunWithinGroups<Element>(const Problem&, const Plan&,          \
                                         const ConvArgs&, Context*);
KCONV_RUN(float)
KCONV_RUN(double)
KCONV_RUN(BFloat16)
KCONV_RUN(Float16)
#undef KCONV_RUN

}  // namespace kconv::fft
