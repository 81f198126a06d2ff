// Filter gradient: each weight is a sum over all outputs.
//
// The boxes of outputs are cut into slices. Some boxes are summed from zero,
// then added to the sum of their slice, and slices are added in a fixed tree:
// rounding errors grow with the places summed at first and with how often that
// is done, not with the product.

#include "algorithms/depthwise/operand.h"
#include "algorithms/depthwise/passes.h"
#include "algorithms/depthwise/plan.h"
#include "slices.h"

namespace kconv::depthwise {
namespace {

// Outputs summed before they are added to the sum of a slice.
constexpr int64_t kSummedPlaces = 512;

// In elements, each part whole cache lines.
struct Sizes {
  int64_t partials;  // of all slices
  int64_t sums;      // of a chunk: [vector][tap][lane]
  int64_t input, gradient;

  Sizes(const Problem& problem, const Plan& plan)
      : partials(plan.slices.count * problem.shape.FilterElements()),
        sums(problem.shape.KernelTaps() * plan.chunks.Lanes()),
        input(plan.input_panel),
        gradient(plan.output_panel) {
    for (int64_t* part : {&partials, &sums, &input, &gradient}) {
      *part = RoundUp(*part, 16);
    }
  }

  int64_t OfWorker() const { return 2 * sums + input + gradient; }
};

template <typename Element>
class FilterGradient {
 public:
  using Sum = SumType<Element>;

  FilterGradient(const Problem& problem, const ConvArgs& args, Context* ctx)
      : problem_(problem),
        plan_(problem, ctx->isa),
        sizes_(problem, plan_),
        kernels_(KernelsFor(ctx->isa)),
        kernel_(KernelOf<Sum>(kernels_)),
        input_(problem.shape, true, plan_, kernels_, args.input),
        gradient_(problem.shape, false, plan_, kernels_, args.output),
        filter_(static_cast<Element*>(args.filter)),
        partials_(static_cast<Sum*>(ctx->workspace)) {}

  void Run(Context* ctx) {
    ctx->isa_ran = kernel_.isa;
    const int64_t elements = problem_.shape.FilterElements();
    if (plan_.boxes == 0) {
      std::fill_n(filter_, elements, Element{});
      return;
    }
    const int64_t tasks = plan_.chunks.Count() * plan_.slices.count;
    const double seconds =
        problem_.Macs() / static_cast<double>(tasks) / kMacsPerSecond;
    ctx->ParallelFor(tasks, seconds,
                     [&](int64_t begin, int64_t end, int worker) {
                       for (int64_t task = begin; task < end; ++task) {
                         RunTask(task, worker);
                       }
                     });
    AddSlices(partials_, plan_.slices.count, elements, filter_, ctx);
  }

 private:
  struct Scratch {
    Sum *sums, *totals, *input, *gradient;
  };

  void RunTask(int64_t task, int worker) const {
    Scratch scratch;
    scratch.sums = partials_ + sizes_.partials + worker * sizes_.OfWorker();
    scratch.totals = scratch.sums + sizes_.sums;
    scratch.input = scratch.totals + sizes_.sums;
    scratch.gradient = scratch.input + sizes_.input;

    const int64_t slice = task % plan_.slices.count;
    const Chunk chunk = plan_.chunks.Get(task / plan_.slices.count);
    const int64_t taps = problem_.shape.KernelTaps();
    const int64_t used = RoundUp(chunk.count, plan_.lanes) * taps;
    std::fill_n(scratch.totals, used, Sum(0));
    std::fill_n(scratch.sums, used, Sum(0));
    int64_t places = 0;
    for (int64_t i = plan_.slices.Begin(slice); i < plan_.slices.End(slice);
         ++i) {
      const Box box = plan_.GetBox(i);
      if (box.rows.Size() == 0) continue;
      Box next{};
      if (i + 1 < plan_.slices.End(slice)) next = plan_.GetBox(i + 1);
      SumBox(chunk, box, next, scratch);
      places += box.rows.Size() * plan_.columns.size();
      if (places >= kSummedPlaces) {
        AddSums(used, scratch);
        places = 0;
      }
    }
    AddSums(used, scratch);

    const int64_t filters = problem_.shape.out_channels;
    Sum* to = partials_ + slice * problem_.shape.FilterElements() + chunk.first;
    for (int64_t i = 0; i < chunk.count; i += plan_.lanes) {
      const Sum* from = scratch.totals + i * taps;
      const int64_t count = std::min(plan_.lanes, chunk.count - i);
      for (int64_t t = 0; t < taps; ++t) {
        std::copy_n(from + t * plan_.lanes, count, to + t * filters + i);
      }
    }
  }

  static void AddSums(int64_t count, const Scratch& scratch) {
    for (int64_t i = 0; i < count; ++i) {
      scratch.totals[i] += scratch.sums[i];
      scratch.sums[i] = Sum(0);
    }
  }

  struct Grids {
    Grid input, gradient;
  };

  Band ColumnsOf(const Box& box) const {
    return plan_.columns.Get(box.column_class, box.column_block);
  }

  Grids GridsOf(const Box& box) const {
    const Band columns = ColumnsOf(box);
    const Reach depth = plan_.depth.At(box.depth);
    Grids grids;
    grids.input.Set(0, depth.from, depth.step, depth.taps);
    grids.input.SetReads(1, box.rows);
    grids.input.SetReads(2, columns);
    grids.gradient.Set(0, box.depth, 1, 1);
    grids.gradient.SetWrites(1, box.rows);
    grids.gradient.SetWrites(2, columns);
    return grids;
  }

  // `next` is the box that follows; it may be empty.
  void SumBox(const Chunk& chunk, const Box& box, const Box& next,
              const Scratch& scratch) const {
    const Band columns = ColumnsOf(box);
    if (columns.Size() == 0) return;
    const ConvShape& s = problem_.shape;
    const Reach depth = plan_.depth.At(box.depth);
    if (depth.taps == 0) return;
    const Grids grids = GridsOf(box);
    const Source<Element> input(input_, box.image, grids.input, chunk,
                                scratch.input);
    if (input.High(2) <= input.Low(2)) return;
    const Source<Element> gradient(gradient_, box.image, grids.gradient, chunk,
                                   scratch.gradient);

    const int64_t most = s.kernel[2] <= kMostTaps ? RowsOfTaps(s.kernel[2]) : 1;
    Ahead<Element> input_ahead, gradient_ahead;
    if (next.rows.Size() > 0) {
      const Grids then = GridsOf(next);
      const int64_t parts = CeilDivide(chunk.count, plan_.lanes) * depth.taps *
                            CeilDivide(s.kernel[1], most);
      input_ahead = Ahead<Element>(input_, next.image, then.input, chunk,
                                   Overlap(box, next), parts);
      gradient_ahead =
          Ahead<Element>(gradient_, next.image, then.gradient, chunk, 0, parts);
    }
    for (int64_t v = 0; v * plan_.lanes < chunk.count; ++v) {
      for (int64_t z = 0; z < depth.taps; ++z) {
        const int64_t of_depth = (depth.tap + z) * s.kernel[1];
        for (int64_t y = 0; y < s.kernel[1]; y += most) {
          SumRows(input, gradient, box.rows, columns, v, z, y,
                  std::min(most, s.kernel[1] - y),
                  scratch.sums + v * s.KernelTaps() * plan_.lanes +
                      (of_depth + y) * s.kernel[2] * plan_.lanes);
          input_ahead.Fetch();
          gradient_ahead.Fetch();
        }
      }
    }
  }

  // Output rows [begin, end) of a band for which a row of taps exists.
  struct Rows {
    int64_t begin, end;
  };
  Rows RowsOf(const Source<Element>& input, const Band& band,
              int64_t tap) const {
    const int64_t stride = band.places.stride;
    const int64_t low = input.Low(1) - tap, high = input.High(1) - tap;
    Rows rows;
    rows.begin = low <= 0 ? 0 : CeilDivide(low, stride);
    rows.end = high <= 0 ? 0 : CeilDivide(high, stride);
    rows.end = std::min(rows.end, band.Size());
    rows.begin = std::min(rows.begin, rows.end);
    return rows;
  }

  // `count` rows of taps from `tap` on: together where all of them exist, one
  // by one elsewhere.
  void SumRows(const Source<Element>& input, const Source<Element>& gradient,
               const Band& rows, const Band& columns, int64_t vector, int64_t z,
               int64_t tap, int64_t count, Sum* sums) const {
    Rows all{0, rows.Size()};
    for (int64_t i = 0; i < count; ++i) {
      const Rows own = RowsOf(input, rows, tap + i);
      all.begin = std::max(all.begin, own.begin);
      all.end = std::min(all.end, own.end);
    }
    if (all.begin < all.end) {
      SumColumns(input, gradient, rows, columns, vector, z, tap, count, all,
                 sums);
    } else {
      all.begin = all.end = rows.Size();
    }
    for (int64_t i = 0; i < count; ++i) {
      const Rows own = RowsOf(input, rows, tap + i);
      Sum* to = sums + i * problem_.shape.kernel[2] * plan_.lanes;
      const Rows before{own.begin, std::min(own.end, all.begin)};
      const Rows after{std::max(own.begin, all.end), own.end};
      for (const Rows& some : {before, after}) {
        if (some.begin < some.end) {
          SumColumns(input, gradient, rows, columns, vector, z, tap + i, 1,
                     some, to);
        }
      }
    }
  }

  // All taps of `count` rows of them, a piece after another.
  void SumColumns(const Source<Element>& input, const Source<Element>& gradient,
                  const Band& rows, const Band& columns, int64_t vector,
                  int64_t z, int64_t tap, int64_t count, const Rows& some,
                  Sum* sums) const {
    const int64_t taps = problem_.shape.kernel[2];
    const int64_t stride = rows.places.stride;
    FilterRows<Sum> p;
    p.read_row = stride * input.Unit(1);
    p.read_y = input.Unit(1);
    p.stride = columns.places.stride;
    p.taps_y = count;
    const ReadRow<Sum> from = gradient.Row(0, some.begin);
    p.gradient = from.data + from.offset + vector * from.vector;
    p.gradient_row = gradient.Unit(1);
    p.gradient_pitch = gradient.Unit(2);
    p.rows = some.end - some.begin;
    p.columns = columns.Size();
    p.sums_y = taps * plan_.lanes;
    const bool fetches = z == 0 && tap == 0 && !input_.is_gathered &&
                         vector * plan_.lanes * int64_t{sizeof(Sum)} % 64 == 0;
    p.fetch_rows = fetches ? stride : 0;
    p.fetch =
        (stride * (rows.Size() - 1) + problem_.shape.kernel[1]) * input.Unit(1);
    p.fetch_gradient = rows.Size() * p.gradient_row;
    const int64_t pieces = CeilDivide(taps, kMostTaps);
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t first = i * taps / pieces;
      p.taps_x = (i + 1) * taps / pieces - first;
      p.read = input.Row(z, stride * some.begin + tap);
      p.read.offset += first * p.read.pitch + vector * p.read.vector;
      p.read.low -= first;
      p.read.high -= first;
      p.sums = sums + first * plan_.lanes;
      kernel_.filter(p);
      p.fetch_rows = 0;
    }
  }

  const Problem& problem_;
  const Plan plan_;
  const Sizes sizes_;
  const Kernels& kernels_;
  const Kernel<Sum>& kernel_;
  const Operand<Element> input_, gradient_;
  Element* filter_;
  Sum* partials_;
};

}  // namespace

int64_t FilterGradientWorkspace(const Problem& problem, Isa isa, int threads) {
  const Sizes sizes(problem, Plan(problem, isa));
  return (sizes.partials + threads * sizes.OfWorker()) *
         (problem.dtype == DType::kFloat64 ? 8 : 4);
}

template <typename Element>
void RunFilterGradient(const Problem& problem, const ConvArgs& args,
                       Context* ctx) {
  FilterGradient<Element>(problem, args, ctx).Run(ctx);
}

template void RunFilterGradient<float>(const Problem&, const ConvArgs&,
                                       Context*);
template void RunFilterGradient<double>(const Problem&, const ConvArgs&,
                                        Context*);
template void RunFilterGradient<BFloat16>(const Problem&, const ConvArgs&,
                                          Context*);
template void RunFilterGradient<Float16>(const Problem&, const ConvArgs&,
                                         Context*);

}  // namespace kconv::depthwise
