// Forward pass and input gradient, which differ in where a place reads
// (axis.h).

#include <type_traits>

#include "algorithms/depthwise/operand.h"
#include "algorithms/depthwise/passes.h"
#include "algorithms/depthwise/plan.h"

namespace kconv::depthwise {
namespace {

constexpr int64_t kFewTaps = 9;

// What a worker needs, in elements, each part whole cache lines.
struct Sizes {
  int64_t weights, bias, read, written;

  Sizes(const Problem& problem, const Plan& plan)
      : weights(problem.shape.KernelTaps() * plan.chunks.Lanes()),
        bias(plan.chunks.Lanes()),
        read(plan.input_panel),
        written(plan.output_panel) {
    if (problem.pass == Pass::kInputGradient) std::swap(read, written);
    for (int64_t* part : {&weights, &bias, &read, &written}) {
      *part = RoundUp(*part, 16);
    }
  }

  int64_t Sum() const { return weights + bias + read + written; }
};

template <typename Element>
class ImagePass {
 public:
  using Sum = SumType<Element>;

  ImagePass(const Problem& problem, const ConvArgs& args, Context* ctx)
      : problem_(problem),
        plan_(problem, ctx->isa),
        sizes_(problem, plan_),
        kernels_(KernelsFor(ctx->isa)),
        kernel_(KernelOf<Sum>(kernels_)),
        transposed_(problem.pass == Pass::kInputGradient),
        read_(problem.shape, !transposed_, plan_, kernels_,
              transposed_ ? args.output : args.input),
        written_(problem.shape, transposed_, plan_, kernels_,
                 transposed_ ? args.input : args.output),
        filter_(static_cast<const Element*>(args.filter)),
        bias_(static_cast<const Element*>(args.bias)),
        workspace_(static_cast<Sum*>(ctx->workspace)) {}

  void Run(Context* ctx) {
    ctx->isa_ran = kernel_.isa;
    const int64_t tasks = plan_.chunks.Count() * plan_.boxes;
    if (tasks == 0) return;
    const double seconds =
        problem_.Macs() / static_cast<double>(tasks) / kMacsPerSecond;
    ctx->ParallelFor(tasks, seconds,
                     [&](int64_t begin, int64_t end, int worker) {
                       RunTasks(begin, end, worker);
                     });
  }

 private:
  struct Scratch {
    Sum *weights, *bias, *read, *written;
  };

  // The weights and bias of a chunk. Few taps are read where they are: to pack
  // them would take longer than a small image does.
  struct Weights {
    const Sum* first;
    const Sum* bias;
    int64_t tap, vector;  // elements from tap to tap, vector to vector
  };

  void RunTasks(int64_t begin, int64_t end, int worker) const {
    Scratch scratch;
    scratch.weights = workspace_ + worker * sizes_.Sum();
    scratch.bias = scratch.weights + sizes_.weights;
    scratch.read = scratch.bias + sizes_.bias;
    scratch.written = scratch.read + sizes_.read;
    int64_t packed = -1;
    Weights weights{};
    for (int64_t task = begin; task < end; ++task) {
      const int64_t number = task / plan_.boxes;
      const Chunk chunk = plan_.chunks.Get(number);
      if (number != packed) {
        weights = Pack(chunk, scratch);
        packed = number;
      }
      const Box box = plan_.GetBox(task % plan_.boxes);
      if (box.rows.Size() == 0) continue;
      Box next{};
      if (task + 1 < end && (task + 1) / plan_.boxes == number) {
        next = plan_.GetBox((task + 1) % plan_.boxes);
      }
      for (int64_t i = 0; i < plan_.columns.axis().classes(); ++i) {
        const Band columns = plan_.columns.Get(i, box.column_block);
        if (columns.Size() > 0)
          RunBox(chunk, weights, box, next, columns, scratch);
      }
    }
  }

  Weights Pack(const Chunk& chunk, const Scratch& scratch) const {
    const ConvShape& s = problem_.shape;
    if constexpr (std::is_same_v<Element, Sum>) {
      if (chunk.count % plan_.lanes == 0 && s.KernelTaps() <= kFewTaps) {
        return {filter_ + chunk.first,
                bias_ == nullptr ? nullptr : bias_ + chunk.first,
                s.out_channels, plan_.lanes};
      }
    }
    PackFilter(filter_, s.KernelTaps(), s.out_channels, chunk, plan_.lanes,
               written_.panels, scratch.weights);
    if (bias_ != nullptr) {
      PackFilter(bias_, 1, s.out_channels, chunk, plan_.lanes, written_.panels,
                 scratch.bias);
    }
    return {scratch.weights, bias_ == nullptr ? nullptr : scratch.bias,
            plan_.lanes, s.KernelTaps() * plan_.lanes};
  }

  Grid GridOf(const Box& box, const Band& columns) const {
    const Reach depth = plan_.depth.At(box.depth);
    Grid grid;
    grid.Set(0, depth.from, depth.step, depth.taps);
    grid.SetReads(1, box.rows);
    grid.SetReads(2, columns);
    return grid;
  }

  // `next` is the box that follows; it may be empty.
  void RunBox(const Chunk& chunk, const Weights& weights, const Box& box,
              const Box& next, const Band& columns,
              const Scratch& scratch) const {
    const ConvShape& s = problem_.shape;
    const Reach depth = plan_.depth.At(box.depth);
    const Grid grid = GridOf(box, columns);
    const Source<Element> source(read_, box.image, grid, chunk, scratch.read);

    ImageRow<Sum> row;
    row.read_z = source.Unit(0);
    row.read_y = source.Unit(1);
    row.stride = columns.places.stride;
    row.weights_vector = weights.vector;
    const int64_t step[3] = {s.kernel[1] * s.kernel[2] * weights.tap,
                             s.kernel[2] * weights.tap, weights.tap};
    row.columns = columns.Size();
    row.vectors = CeilDivide(chunk.count, plan_.lanes);
    row.bias = weights.bias;
    row.activation = problem_.epilogue.activation;
    const AxisClass& places = box.rows.places;
    row.fetch_rows = read_.NeedsPanel(chunk) ? 0 : places.stride;
    row.fetch_to = places.pitch * written_.stride[1];
    Ahead<Element> ahead;
    if (next.rows.Size() > 0) {
      ahead = Ahead<Element>(read_, next.image, GridOf(next, columns), chunk,
                             Overlap(box, next), box.rows.Size());
    }
    for (int64_t j = box.rows.begin; j < box.rows.end; ++j) {
      const int64_t y = places.first + places.pitch * j;
      const Reach height = plan_.rows.axis().At(y);
      // The first row of taps that exists, as a row of the grid.
      const int64_t first =
          height.taps == 0 ? 0 : (height.from - grid.from[1]) / grid.step[1];
      row.read = source.Row(0, first);
      row.taps[0] = depth.taps;
      row.taps[1] = height.taps;
      row.fetch = height.taps * row.read_y;
      row.taps[2] = columns.places.taps;
      row.weights_step[0] = depth.tap_step * step[0];
      row.weights_step[1] = height.tap_step * step[1];
      row.weights_step[2] = columns.places.tap_step * step[2];
      row.weights = weights.first + depth.tap * step[0] + height.tap * step[1] +
                    columns.places.tap * step[2];
      Write(chunk, box, y, columns, scratch, &row);
      ahead.Fetch();
    }
  }

  void Write(const Chunk& chunk, const Box& box, int64_t y, const Band& columns,
             const Scratch& scratch, ImageRow<Sum>* row) const {
    Element* to =
        written_.data + box.image * written_.image +
        box.depth * written_.stride[0] + y * written_.stride[1] +
        (columns.places.first + columns.places.pitch * columns.begin) *
            written_.stride[2] +
        chunk.first / written_.repeat * written_.channel;
    const int64_t pitch = columns.places.pitch * written_.stride[2];
    if (!written_.NeedsPanel(chunk)) {
      if constexpr (std::is_same_v<Element, Sum>) {
        row->to = to;
        row->to_pitch = pitch;
        kernel_.image(*row);
        return;
      }
    }
    row->to = scratch.written;
    row->to_pitch = row->vectors * plan_.lanes;
    row->fetch_rows = 0;
    kernel_.image(*row);
    Columns<Element> back;
    back.tensor = to;
    back.pitch = pitch;
    back.channel = written_.channel;
    back.count = row->columns;
    back.used = chunk.count;
    back.repeat = written_.repeat;
    back.skip = 0;
    written_.panels.scatter(back, scratch.written, row->to_pitch);
  }

  const Problem& problem_;
  const Plan plan_;
  const Sizes sizes_;
  const Kernels& kernels_;
  const Kernel<Sum>& kernel_;
  const bool transposed_;
  const Operand<Element> read_, written_;
  const Element* filter_;
  const Element* bias_;
  Sum* workspace_;
};

}  // namespace

int64_t ImagePassWorkspace(const Problem& problem, Isa isa, int threads) {
  return threads * Sizes(problem, Plan(problem, isa)).Sum() *
         (problem.dtype == DType::kFloat64 ? 8 : 4);
}

template <typename Element>
void RunImagePass(const Problem& problem, const ConvArgs& args, Context* ctx) {
  ImagePass<Element>(problem, args, ctx).Run(ctx);
}

template void RunImagePass<float>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<double>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<BFloat16>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<Float16>(const Problem&, const ConvArgs&, Context*);

}  // namespace kconv::depthwise
