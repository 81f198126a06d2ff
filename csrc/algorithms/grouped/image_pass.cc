// Forward and input gradient. The filter is packed for all tasks first; then a
// task stages the rows that its units read and sums row by row.

#include <algorithm>
#include <type_traits>

#include "algorithms/grouped/arena.h"
#include "algorithms/grouped/plan.h"

namespace kconv::grouped {
namespace {

// Vectors of channels that are summed for all rows of a chunk before others.
constexpr int64_t kPartVectors = 2;

// The packed filter: [unit][tap][channel read][y_width].
int64_t PackedTap(const Plan& p) { return p.in * p.y_width; }
int64_t PackedUnit(const Plan& p, const ConvShape& s) {
  return s.KernelTaps() * PackedTap(p);
}

template <typename Sum>
struct Shared {
  Sum* filter;
  Sum* bias;  // [unit][y_width]

  Shared(const Plan& p, const Problem& problem, Arena* arena) {
    const int64_t units = p.units.total;
    filter = arena->Take<Sum>(units * PackedUnit(p, problem.shape));
    bias = problem.epilogue.Empty() ? nullptr
                                    : arena->Take<Sum>(units * p.y_width);
  }
};

template <typename Sum>
struct Scratch {
  Sum* panel;
  Sum* sums;  // of a row, where they do not go to the tensor at once
  const Sum** x_rows;
  const Sum** w_rows;

  Scratch(const Plan& p, const ConvShape& s, Arena* arena) {
    panel = arena->Take<Sum>(p.units.size * p.unit_elements);
    sums = arena->Take<Sum>(p.columns * p.y_width);
    x_rows = arena->Take<const Sum*>(s.kernel[0] * s.kernel[1]);
    w_rows = arena->Take<const Sum*>(s.kernel[0] * s.kernel[1]);
  }
};

template <typename Sum>
Workspace WorkspaceOf(const Plan& p, const Problem& problem) {
  Arena shared(nullptr), worker(nullptr);
  Shared<Sum>(p, problem, &shared);
  Scratch<Sum>(p, problem.shape, &worker);
  return {shared.Bytes(), worker.Bytes()};
}

template <typename Element>
class ImagePass {
 public:
  using Sum = SumType<Element>;

  ImagePass(const Problem& problem, const ConvArgs& args, Context* ctx)
      : problem_(problem),
        shape_(problem.shape),
        backwards_(problem.pass == Pass::kInputGradient),
        kernel_(KernelFor<Element>(ctx->isa)),
        p_(problem, kernel_.lanes),
        from_(
            static_cast<const Element*>(backwards_ ? args.output : args.input)),
        filter_(static_cast<const Element*>(args.filter)),
        bias_(static_cast<const Element*>(args.bias)),
        to_(static_cast<Element*>(backwards_ ? args.input : args.output)),
        arena_(ctx->workspace),
        shared_(p_, problem, &arena_),
        workers_(arena_.Take<char>(0)),
        worker_bytes_(WorkspaceOf<Sum>(p_, problem).worker) {}

  void Run(Context* ctx) {
    ctx->isa_ran = kernel_.isa;
    const int64_t tasks = p_.Chunks() * p_.units.count;
    if (tasks == 0) return;
    ctx->ParallelFor(p_.units.total,
                     1e-9 * static_cast<double>(PackedUnit(p_, shape_)),
                     [&](int64_t begin, int64_t end, int) {
                       for (int64_t i = begin; i < end; ++i) PackUnit(i);
                     });
    ctx->ParallelFor(
        tasks, problem_.Macs() / static_cast<double>(tasks) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int worker) {
          Arena arena(workers_ + worker * worker_bytes_);
          const Scratch<Sum> scratch(p_, shape_, &arena);
          for (int64_t i = begin; i < end; ++i) {
            RunTask(p_.At(i / p_.units.count), i % p_.units.count, scratch);
          }
        });
  }

 private:
  void PackUnit(int64_t unit) const {
    Sum* to = shared_.filter + unit * PackedUnit(p_, shape_);
    std::fill_n(to, PackedUnit(p_, shape_), Sum(0));
    const int64_t first = unit * p_.unit_groups * shape_.GroupOutChannels();
    // Elements of the filter between channels that are read, and written.
    const int64_t read = backwards_ ? 1 : shape_.out_channels;
    const int64_t written = backwards_ ? shape_.out_channels : 1;
    const int64_t tap_elements = shape_.GroupInChannels() * shape_.out_channels;
    for (int64_t tap = 0; tap < shape_.KernelTaps(); ++tap) {
      for (int64_t g = 0; g < p_.GroupsOf(unit); ++g) {
        const Element* from = filter_ + tap * tap_elements + first +
                              g * shape_.GroupOutChannels();
        Sum* lanes = to + tap * PackedTap(p_) + g * p_.slot;
        for (int64_t c = 0; c < p_.in; ++c) {
          for (int64_t o = 0; o < p_.out; ++o) {
            lanes[c * p_.y_width + o] = Widen(from[c * read + o * written]);
          }
        }
      }
    }
    if (shared_.bias == nullptr) return;
    Sum* bias = shared_.bias + unit * p_.y_width;
    std::fill_n(bias, p_.y_width, Sum(0));
    if (bias_ == nullptr) return;
    const Element* from = bias_ + unit * p_.unit_groups * p_.out;
    for (int64_t g = 0; g < p_.GroupsOf(unit); ++g) {
      for (int64_t o = 0; o < p_.out; ++o) {
        bias[g * p_.slot + o] = Widen(from[g * p_.out + o]);
      }
    }
  }

  void RunTask(const Chunk& chunk, int64_t block,
               const Scratch<Sum>& scratch) const {
    if (chunk.rows == 0 || chunk.columns == 0) return;
    const Reach depth = p_.axes[0].At(chunk.depth);
    const int64_t begin = p_.units.Begin(block), end = p_.units.End(block);
    StageChunk(p_, kernel_, chunk, depth, begin, end, from_, scratch.panel);
    // The weights of some lanes stay in the first-level cache for all rows. The
    // units of a row may share lines of the result, and so are neighbours where
    // their weights are few.
    const int64_t part = kPartVectors * kernel_.lanes;
    if (p_.y_width > kernel_.lanes) {
      for (int64_t unit = begin; unit < end; ++unit) {
        for (int64_t lane = 0; lane < p_.y_width; lane += part) {
          for (int64_t j = 0; j < chunk.rows; ++j) {
            SumRow(chunk, depth, j, unit, unit - begin, lane,
                   std::min(part, p_.y_width - lane), scratch);
          }
        }
      }
      return;
    }
    for (int64_t j = 0; j < chunk.rows; ++j) {
      for (int64_t unit = begin; unit < end; ++unit) {
        SumRow(chunk, depth, j, unit, unit - begin, 0, p_.y_width, scratch);
      }
    }
  }

  // Row j of a chunk: lanes [lane, lane + lanes) of a unit, which is number
  // `at` of those staged.
  void SumRow(const Chunk& chunk, const Reach& depth, int64_t j, int64_t unit,
              int64_t at, int64_t lane, int64_t lanes,
              const Scratch<Sum>& scratch) const {
    const AxisClass& row = chunk.row;
    const AxisClass& column = chunk.column;
    const RowTaps taps(row, chunk.first_row + j, p_.axes[1].read());
    const int64_t panel_rows = p_.Places(row, chunk.rows);
    const Sum* panel = scratch.panel + at * p_.unit_elements;
    const Sum* filter = shared_.filter + unit * PackedUnit(p_, shape_) +
                        column.tap * PackedTap(p_) + lane;
    ImageRow<Sum> r;
    r.rows = 0;
    for (int64_t v = 0; v < depth.taps; ++v) {
      const int64_t d_tap = depth.tap + depth.tap_step * v;
      for (int64_t u = taps.first; u < taps.end; ++u, ++r.rows) {
        const int64_t tap =
            d_tap * shape_.kernel[1] + row.tap + row.tap_step * u;
        scratch.x_rows[r.rows] =
            panel + (v * panel_rows + p_.Pitch(row) * j + u) * p_.row_elements;
        scratch.w_rows[r.rows] =
            filter + tap * shape_.kernel[2] * PackedTap(p_);
      }
    }
    r.slot = p_.slot;
    r.x = scratch.x_rows;
    r.w = scratch.w_rows;
    r.columns = chunk.columns;
    r.taps = column.taps;
    r.channels = p_.in;
    r.x_width = p_.x_width;
    r.y_width = p_.y_width;
    r.x_column = p_.Pitch(column) * p_.x_width;
    r.is_dense = p_.Pitch(column) == 1;
    r.w_tap = column.tap_step * PackedTap(p_);
    r.lanes = lanes;
    r.bias = shared_.bias == nullptr ? nullptr
                                     : shared_.bias + unit * p_.y_width + lane;
    r.activation = problem_.epilogue.activation;

    // A wide unit has one channel to a lane.
    const int64_t channels = std::min(p_.out - lane, lanes);
    const int64_t groups = p_.GroupsOf(unit);
    const int64_t place = column.pitch * p_.written.place;
    Element* to =
        to_ + (unit * p_.unit_groups * p_.out + lane) * p_.written.channel +
        p_.written.Offset(chunk.image, chunk.depth,
                          row.first + row.pitch * (chunk.first_row + j),
                          column.first + column.pitch * chunk.first_column);
    if constexpr (std::is_same_v<Element, Sum>) {
      if (p_.written.channel == 1 && groups * channels == lanes) {
        r.to = to;
        r.to_column = place;
        kernel_.image_row(r);
        return;
      }
    }
    r.to = scratch.sums;
    r.to_column = lanes;
    kernel_.image_row(r);
    kernel_.store({{p_.slot, groups, channels, lanes},
                   chunk.columns,
                   scratch.sums,
                   to,
                   place,
                   p_.written.channel});
  }

  const Problem& problem_;
  const ConvShape& shape_;
  const bool backwards_;
  const Kernel<Element>& kernel_;
  const Plan p_;
  const Element* from_;
  const Element* filter_;
  const Element* bias_;
  Element* to_;
  Arena arena_;
  const Shared<Sum> shared_;
  char* workers_;
  int64_t worker_bytes_;
};

}  // namespace

Workspace ImagePassWorkspace(const Problem& problem, Isa isa) {
  return problem.dtype == DType::kFloat64
             ? WorkspaceOf<double>(Plan(problem, KernelFor<double>(isa).lanes),
                                   problem)
             : WorkspaceOf<float>(Plan(problem, KernelFor<float>(isa).lanes),
                                  problem);
}

template <typename Element>
void RunImagePass(const Problem& problem, const ConvArgs& args, Context* ctx) {
  ImagePass<Element>(problem, args, ctx).Run(ctx);
}

template void RunImagePass<float>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<double>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<BFloat16>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<Float16>(const Problem&, const ConvArgs&, Context*);

}  // namespace kconv::grouped
