// Filter gradient. A task takes a block of units and a slice of the chunks; it
// sums the places of one chunk in registers, and the chunks in its scratch.
// The slices' partial results are added in a fixed tree.

#include <algorithm>

#include "algorithms/grouped/arena.h"
#include "algorithms/grouped/plan.h"
#include "slices.h"

namespace kconv::grouped {
namespace {

constexpr int64_t kWantedTasks = 32;
// The slices' partial results together, in elements.
constexpr int64_t kPartialElements = int64_t{4} << 20;

// Places of a row of the output's gradient that are staged.
int64_t GradientRow(const Plan& p) { return p.columns * p.y_width; }
int64_t TapSums(const Plan& p) { return p.in * p.y_width; }

Split SlicesOf(const Plan& p, const ConvShape& s) {
  const int64_t most =
      std::min(kWantedTasks / p.units.count,
               kPartialElements / std::max<int64_t>(1, s.FilterElements()));
  return Split(p.Chunks(), std::max<int64_t>(1, most), 1);
}

template <typename Sum>
struct Scratch {
  Sum* panel;
  Sum* gradient;  // [unit][row][column]
  Sum* sums;      // [unit][tap][channel read][y_width]
  const Sum** x_rows;
  const Sum** y_rows;

  Scratch(const Plan& p, const ConvShape& s, Arena* arena) {
    panel = arena->Take<Sum>(p.units.size * p.unit_elements);
    gradient = arena->Take<Sum>(p.units.size * p.rows * GradientRow(p));
    sums = arena->Take<Sum>(p.units.size * s.KernelTaps() * TapSums(p));
    x_rows = arena->Take<const Sum*>(p.rows);
    y_rows = arena->Take<const Sum*>(p.rows);
  }
};

template <typename Sum>
Workspace WorkspaceOf(const Plan& p, const ConvShape& s) {
  Arena shared(nullptr), worker(nullptr);
  shared.Take<Sum>(SlicesOf(p, s).count * s.FilterElements());
  Scratch<Sum>(p, s, &worker);
  return {shared.Bytes(), worker.Bytes()};
}

template <typename Element>
class FilterGradient {
 public:
  using Sum = SumType<Element>;

  FilterGradient(const Problem& problem, const ConvArgs& args, Context* ctx)
      : problem_(problem),
        shape_(problem.shape),
        kernel_(KernelFor<Element>(ctx->isa)),
        p_(problem, kernel_.lanes),
        slices_(SlicesOf(p_, shape_)),
        input_(static_cast<const Element*>(args.input)),
        gradient_(static_cast<const Element*>(args.output)),
        filter_(static_cast<Element*>(args.filter)),
        partials_(static_cast<Sum*>(ctx->workspace)),
        workers_(static_cast<char*>(ctx->workspace) +
                 WorkspaceOf<Sum>(p_, shape_).shared),
        worker_bytes_(WorkspaceOf<Sum>(p_, shape_).worker) {}

  void Run(Context* ctx) {
    ctx->isa_ran = kernel_.isa;
    const int64_t elements = shape_.FilterElements();
    if (slices_.count == 0) {
      std::fill_n(filter_, elements, Element{});
      return;
    }
    const int64_t tasks = slices_.count * p_.units.count;
    ctx->ParallelFor(
        tasks, problem_.Macs() / static_cast<double>(tasks) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int worker) {
          Arena arena(workers_ + worker * worker_bytes_);
          const Scratch<Sum> scratch(p_, shape_, &arena);
          for (int64_t i = begin; i < end; ++i) {
            RunTask(i / p_.units.count, i % p_.units.count, scratch);
          }
        });
    AddSlices(partials_, slices_.count, elements, filter_, ctx);
  }

 private:
  void RunTask(int64_t slice, int64_t block,
               const Scratch<Sum>& scratch) const {
    const int64_t begin = p_.units.Begin(block), end = p_.units.End(block);
    const int64_t unit_sums = shape_.KernelTaps() * TapSums(p_);
    std::fill_n(scratch.sums, (end - begin) * unit_sums, Sum(0));
    for (int64_t i = slices_.Begin(slice); i < slices_.End(slice); ++i) {
      const Chunk chunk = p_.At(i);
      if (chunk.rows == 0 || chunk.columns == 0) continue;
      const Reach depth = p_.axes[0].At(chunk.depth);
      StageChunk(p_, kernel_, chunk, depth, begin, end, input_, scratch.panel);
      StageGradient(chunk, begin, end, scratch.gradient);
      for (int64_t at = 0; at < end - begin; ++at) {
        SumUnit(chunk, depth, scratch.panel + at * p_.unit_elements,
                scratch.gradient + at * p_.rows * GradientRow(p_), scratch,
                scratch.sums + at * unit_sums);
      }
    }
    for (int64_t unit = begin; unit < end; ++unit) {
      StoreUnit(unit, scratch.sums + (unit - begin) * unit_sums,
                partials_ + slice * shape_.FilterElements());
    }
  }

  void StageGradient(const Chunk& chunk, int64_t begin, int64_t end,
                     Sum* to) const {
    const Image& image = p_.written;
    Strip<Element> strip;
    strip.lanes = p_.Full(p_.out, p_.y_width);
    strip.zeros_before = strip.zeros_after = 0;
    strip.count = chunk.columns;
    strip.place = chunk.column.pitch * image.place;
    strip.channel = image.channel;
    strip.to_place = p_.y_width;
    strip.to_unit = p_.rows * GradientRow(p_);
    for (int64_t j = 0; j < chunk.rows; ++j) {
      strip.from =
          gradient_ + begin * p_.unit_groups * p_.out * image.channel +
          image.Offset(
              chunk.image, chunk.depth,
              chunk.row.first + chunk.row.pitch * (chunk.first_row + j),
              chunk.column.first + chunk.column.pitch * chunk.first_column);
      strip.to = to + j * GradientRow(p_);
      StageUnits(p_, kernel_, begin, end, strip);
    }
  }

  void SumUnit(const Chunk& chunk, const Reach& depth, const Sum* panel,
               const Sum* gradient, const Scratch<Sum>& scratch,
               Sum* sums) const {
    const AxisClass& row = chunk.row;
    const int64_t panel_rows = p_.Places(row, chunk.rows);
    FilterRows<Sum> r;
    r.slot = p_.slot;
    r.x = scratch.x_rows;
    r.y = scratch.y_rows;
    r.columns = chunk.columns;
    r.taps = chunk.column.taps;
    r.channels = p_.in;
    r.x_width = p_.x_width;
    r.y_width = p_.y_width;
    r.x_column = p_.Pitch(chunk.column) * p_.x_width;
    r.is_dense = p_.Pitch(chunk.column) == 1;
    for (int64_t v = 0; v < depth.taps; ++v) {
      for (int64_t u = 0; u < row.taps; ++u) {
        r.rows = 0;
        for (int64_t j = 0; j < chunk.rows; ++j) {
          const RowTaps taps(row, chunk.first_row + j, p_.axes[1].read());
          if (u < taps.first || u >= taps.end) continue;
          scratch.x_rows[r.rows] =
              panel +
              (v * panel_rows + p_.Pitch(row) * j + u) * p_.row_elements;
          scratch.y_rows[r.rows] = gradient + j * GradientRow(p_);
          ++r.rows;
        }
        if (r.rows == 0) continue;
        r.sums = sums + ((depth.tap + v) * shape_.kernel[1] + u) *
                            shape_.kernel[2] * TapSums(p_);
        kernel_.filter_rows(r);
      }
    }
  }

  void StoreUnit(int64_t unit, const Sum* sums, Sum* to) const {
    to += unit * p_.unit_groups * p_.out;
    for (int64_t i = 0; i < shape_.KernelTaps() * p_.in; ++i) {
      for (int64_t g = 0; g < p_.GroupsOf(unit); ++g) {
        std::copy_n(sums + i * p_.y_width + g * p_.slot, p_.out,
                    to + i * shape_.out_channels + g * p_.out);
      }
    }
  }

  const Problem& problem_;
  const ConvShape& shape_;
  const Kernel<Element>& kernel_;
  const Plan p_;
  const Split slices_;
  const Element* input_;
  const Element* gradient_;
  Element* filter_;
  Sum* partials_;
  char* workers_;
  int64_t worker_bytes_;
};

}  // namespace

Workspace FilterGradientWorkspace(const Problem& problem, Isa isa) {
  return problem.dtype == DType::kFloat64
             ? WorkspaceOf<double>(Plan(problem, KernelFor<double>(isa).lanes),
                                   problem.shape)
             : WorkspaceOf<float>(Plan(problem, KernelFor<float>(isa).lanes),
                                  problem.shape);
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

}  // namespace kconv::grouped
