// Forward, input gradient and filter gradient of groups of one or few channels,
// depthwise ones above all: each lane of a vector is a group. Spectra are
// [plane][real, imaginary][lane].

#include <algorithm>

#include "algorithms/fft/call.h"
#include "algorithms/fft/fft.h"
#include "algorithms/fft/operand.h"
#include "algorithms/fft/transforms.h"

namespace kconv::fft {
namespace {

template <typename Element>
class AcrossGroups : Call<Element> {
  using typename Call<Element>::Sum;
  using Call<Element>::ctx_, Call<Element>::filter_, Call<Element>::grid_,
      Call<Element>::input_, Call<Element>::output_, Call<Element>::p_,
      Call<Element>::scale_, Call<Element>::taps_, Call<Element>::transforms_;

 public:
  AcrossGroups(const Problem& problem, const Plan& plan, const ConvArgs& args,
               Context* ctx)
      : Call<Element>(problem, plan, args, ctx) {
    Arena arena(ctx->workspace);
    filters_ = arena.Take<Sum>(SharedSize(plan));
    scratch_ = arena.Take<char>(0);
    scratch_bytes_ = WorkerBytes(plan);
  }

  // The spectra of filters or, in the filter gradient, their sums.
  static int64_t SharedSize(const Plan& p) {
    return p.vectors.size * p.slices * Pairs(p) * p.Spectrum();
  }
  static int64_t WorkerBytes(const Plan& p) {
    Arena arena(nullptr);
    Scratch scratch(p, &arena);
    return arena.Bytes();
  }

  void Run() {
    for (int64_t i = 0; i < p_.vectors.count; ++i) {
      if (this->IsFilter()) {
        RunFilter(p_.vectors.Begin(i), p_.vectors.Size(i));
      } else {
        RunImage(p_.vectors.Begin(i), p_.vectors.Size(i));
      }
    }
  }

 private:
  static int64_t Pairs(const Plan& p) {
    return p.sides.sources * p.sides.results;
  }

  // Of one worker.
  struct Scratch {
    Sum* room;  // of a transform
    Sum* sources;
    Sum* result;

    Scratch(const Plan& p, Arena* arena) {
      room = arena->Take<Sum>(ScratchSize(Call<Element>::GridFor(p), p.lanes));
      sources = arena->Take<Sum>(p.SourcesAtATime() * p.Spectrum());
      result = arena->Take<Sum>(p.Spectrum());
    }
  };

  Scratch ScratchOf(int worker) const {
    Arena arena(scratch_ + worker * scratch_bytes_);
    return Scratch(p_, &arena);
  }

  int64_t LanesOf(int64_t vector) const {
    return std::min(p_.lanes, p_.groups - vector * p_.lanes);
  }

  // Channel `c` of each group of a vector.
  Tile<Element> ImageTile(const Operand<Element>& image, int64_t number,
                          const Range* places, int64_t vector, int64_t c,
                          int64_t of_group) const {
    const int64_t channel = vector * p_.lanes * of_group + c;
    return image.At(image.data + number * image.image + channel * image.channel,
                    places[0], places[1], of_group * image.channel,
                    LanesOf(vector));
  }

  // The taps between a source and a result of each group of a vector.
  Tile<Element> FilterTile(int64_t vector, int64_t source,
                           int64_t result) const {
    const bool backwards = this->IsBackwards();
    const int64_t outputs = backwards ? p_.sides.sources : p_.sides.results;
    const int64_t c = backwards ? result : source;
    const int64_t o = backwards ? source : result;
    return filter_.At(
        filter_.data + c * filter_.channel + vector * p_.lanes * outputs + o,
        taps_[0], taps_[1], outputs, LanesOf(vector));
  }

  // To a spectrum of its own.
  void Forward(const Tile<Element>& tile, Sum* room, Sum* to) const {
    transforms_.forward(grid_, tile, room,
                        {to, 2 * p_.lanes, p_.lanes, p_.lanes, false});
  }

  void Backward(const Sum* from, const Ending<Sum>& ending, Sum* room,
                const Tile<Element>& tile) const {
    transforms_.backward(grid_, {from, 2 * p_.lanes, p_.lanes, p_.lanes, false},
                         ending, room, tile);
  }

  template <typename Body>
  void ForItems(int64_t items, double transforms, const Body& body) {
    const double points = static_cast<double>(grid_.n[0] * grid_.n[1]);
    ctx_->ParallelFor(items,
                      transforms * 20 * points * static_cast<double>(p_.lanes) /
                          kMacsPerSecond,
                      [&](int64_t begin, int64_t end, int worker) {
                        const Scratch scratch = ScratchOf(worker);
                        for (int64_t i = begin; i < end; ++i) body(i, scratch);
                      });
  }

  void RunImage(int64_t first, int64_t vectors) {
    const int64_t sources = p_.sides.sources, results = p_.sides.results;
    const int64_t pairs = Pairs(p_);
    ForItems(vectors * pairs, 1, [&](int64_t i, const Scratch& scratch) {
      const int64_t pair = i % pairs;
      Forward(FilterTile(first + i / pairs, pair / results, pair % results),
              scratch.room, filters_ + i * p_.Spectrum());
    });
    ForItems(p_.tiles * vectors, static_cast<double>(sources + results),
             [&](int64_t i, const Scratch& scratch) {
               RunTile(i / vectors, first + i % vectors,
                       filters_ + i % vectors * pairs * p_.Spectrum(), scratch);
             });
  }

  void RunTile(int64_t number, int64_t vector, const Sum* filters,
               const Scratch& scratch) const {
    const int64_t sources = p_.sides.sources, results = p_.sides.results;
    const TilePlaces places(p_.tiling, number);
    const bool keeps = p_.SourcesAtATime() == sources;
    for (int64_t j = 0; j < results; ++j) {
      for (int64_t i = 0; i < sources; ++i) {
        Sum* spectrum = scratch.sources + (keeps ? i : 0) * p_.Spectrum();
        if (j == 0 || !keeps) {
          Forward(ImageTile(this->Source(), places.image, places.read, vector,
                            i, sources),
                  scratch.room, spectrum);
        }
        transforms_.multiply(p_.planes, spectrum,
                             filters + (i * results + j) * p_.Spectrum(), i > 0,
                             scratch.result);
      }
      alignas(64) Sum bias[kMaxLanes];
      const int64_t channel = vector * p_.lanes * results + j;
      Backward(scratch.result,
               this->EndingOf(channel, results, LanesOf(vector), bias),
               scratch.room,
               ImageTile(this->Result(), places.image, places.written, vector,
                         j, results));
    }
  }

  // Sums of slices of the tiles, which are added in pairs: slice i takes up i +
  // 1, then i + 2, i + 4, ....
  void RunFilter(int64_t first, int64_t vectors) {
    const int64_t sources = p_.sides.sources, results = p_.sides.results;
    const int64_t pairs = Pairs(p_);
    const Split slices(p_.tiles, p_.slices, 1);
    const int64_t count = std::max<int64_t>(slices.count, 1);
    const auto sum_of = [&](int64_t vector, int64_t slice, int64_t pair) {
      return filters_ +
             ((vector * count + slice) * pairs + pair) * p_.Spectrum();
    };
    ForItems(
        vectors * count, static_cast<double>((sources + results) * slices.size),
        [&](int64_t i, const Scratch& scratch) {
          const int64_t vector = i / count, slice = i % count;
          if (slices.count == 0) {
            std::fill_n(sum_of(vector, 0, 0), pairs * p_.Spectrum(), Sum(0));
          }
          for (int64_t t = slices.Begin(slice); t < slices.End(slice); ++t) {
            const TilePlaces places(p_.tiling, t);
            for (int64_t k = 0; k < sources; ++k) {
              Forward(ImageTile(input_, places.image, places.read,
                                first + vector, k, sources),
                      scratch.room, scratch.sources + k * p_.Spectrum());
            }
            for (int64_t j = 0; j < results; ++j) {
              Forward(ImageTile(output_, places.image, places.written,
                                first + vector, j, results),
                      scratch.room, scratch.result);
              for (int64_t k = 0; k < sources; ++k) {
                transforms_.multiply(p_.planes,
                                     scratch.sources + k * p_.Spectrum(),
                                     scratch.result, t > slices.Begin(slice),
                                     sum_of(vector, slice, k * results + j));
              }
            }
          }
        });
    ForItems(vectors * pairs, 1, [&](int64_t i, const Scratch& scratch) {
      const int64_t vector = i / pairs, pair = i % pairs;
      for (int64_t step = 1; step < count; step *= 2) {
        for (int64_t s = 0; s + step < count; s += 2 * step) {
          Sum* sum = sum_of(vector, s, pair);
          const Sum* other = sum_of(vector, s + step, pair);
          for (int64_t e = 0; e < p_.Spectrum(); ++e) sum[e] += other[e];
        }
      }
      Backward(sum_of(vector, 0, pair), {scale_}, scratch.room,
               FilterTile(first + vector, pair / results, pair % results));
    });
  }

  Sum* filters_;
  char* scratch_;
  int64_t scratch_bytes_;
};

}  // namespace

template <typename Element>
Bytes AcrossGroupsBytes(const Problem&, const Plan& plan, Isa) {
  using Sum = SumType<Element>;
  return {
      RoundUp(AcrossGroups<Element>::SharedSize(plan) * int64_t{sizeof(Sum)},
              64),
      AcrossGroups<Element>::WorkerBytes(plan)};
}

template <typename Element>
void RunAcrossGroups(const Problem& problem, const Plan& plan,
                     const ConvArgs& args, Context* ctx) {
  AcrossGroups<Element>(problem, plan, args, ctx).Run();
}

#define KCONV_RUN(Element)                                                     \
  template Bytes AcrossGroupsBytes<Element>(const Problem&, const Plan&, Isa); \
  template void RunAcrossGroups<Element>(const Problem&, const Plan&,          \
                                         const ConvArgs&, Context*);
KCONV_RUN(float)
KCONV_RUN(double)
KCONV_RUN(BFloat16)
KCONV_RUN(Float16)
#undef KCONV_RUN

}  // namespace kconv::fft
