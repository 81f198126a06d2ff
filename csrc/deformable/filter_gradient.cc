// Filter gradient: the gathered values of some pixels, transposed, times the
// output's gradient at them.
//
// The rows of the filter, taps x channels of a group, are cut into blocks, one
// a task. Where these are few, the pixels are cut into slices as well, and the
// slices' partial results are added in a fixed tree.

#include "deformable/passes.h"
#include "slices.h"

namespace kconv::deformable {
namespace {

// Rows of the filter of a task.
template <typename Sum>
inline constexpr int64_t kRows = 192 * 4 / int64_t{sizeof(Sum)};

// Pixels that are summed at a time, and output channels that are packed at a
// time: the widest panel there is.
template <typename Sum>
inline constexpr int64_t kPixels = kDepth<Sum> / 2;
template <typename Sum>
inline constexpr int64_t kPanelColumns = 256 / int64_t{sizeof(Sum)};

// Of a slice that is made for parallelism.
inline constexpr int64_t kLeastSlicePixels = 512;

template <typename Element>
class FilterGradient {
 public:
  using Sum = SumType<Element>;

  FilterGradient(const DeformProblem& problem, const DeformArgs& args, Isa isa,
                 void* workspace)
      : shape_(problem.shape),
        conv_(problem.shape.conv),
        macs_(problem.Macs()),
        args_(args),
        window_(WindowOf(problem.shape)),
        kernel_(KernelFor<Element>(isa)),
        gemm_(GemmKernelFor<Sum>(isa)),
        rows_(Depth(), CeilDivide(Depth(), kRows<Sum>), kPixelUnit),
        slices_(shape_.Pixels(),
                std::min(kWantedTasks / (conv_.groups * rows_.count),
                         shape_.Pixels() / kLeastSlicePixels),
                1),
        arena_(workspace) {
    // The samples of a block of rows and pixels.
    for (int64_t group = 0; group < conv_.groups; ++group) {
      for (int64_t block = 0; block < rows_.count; ++block) {
        const Points points = BlockPoints(group, block);
        most_points_ = std::max(most_points_, points.OfPixel());
      }
    }
    pixels_ =
        std::clamp(kMostSamples / most_points_, kLeastPixels, kPixels<Sum>);
    const bool direct = slices_.count == 1 && std::is_same_v<Element, Sum>;
    partials_ =
        arena_.Take<Sum>(direct ? 0 : slices_.count * conv_.FilterElements());
    scratch_ = arena_.Take<char>(0);
    sums_ = direct ? static_cast<Sum*>(args.result) : partials_;
    direct_ = direct;
  }

  int64_t Workspace(int threads) const {
    Arena arena(nullptr);
    static_cast<void>(Scratch(this, &arena));
    return arena_.bytes() + threads * arena.bytes();
  }

  void Run(Context* ctx) {
    const int64_t tasks = conv_.groups * rows_.count * slices_.count;
    ctx->ParallelFor(
        tasks, macs_ / static_cast<double>(tasks) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int worker) {
          Arena arena(nullptr);
          static_cast<void>(Scratch(this, &arena));
          Arena own(scratch_ + worker * arena.bytes());
          const Scratch scratch(this, &own);
          for (int64_t task = begin; task < end; ++task) {
            const int64_t slice = task % slices_.count;
            const int64_t block = task / slices_.count % rows_.count;
            RunTask(task / slices_.count / rows_.count, block, slice, scratch);
          }
        });
    if (!direct_) {
      AddSlices(partials_, slices_.count, conv_.FilterElements(),
                static_cast<Element*>(args_.result), ctx);
    }
  }

 private:
  struct Scratch {
    Sample<Sum>* samples;
    Sum* values;  // pixels, each a row
    Sum* panels;  // of the output's gradient
    Sum** c_rows;

    Scratch(const FilterGradient* pass, Arena* arena) {
      samples = arena->Take<Sample<Sum>>(pass->pixels_ * pass->most_points_);
      values = arena->Take<Sum>(pass->pixels_ * kStride);
      panels = arena->Take<Sum>(pass->pixels_ * kPanelColumns<Sum>);
      c_rows = arena->Take<Sum*>(pass->rows_.size);
    }
  };

  static constexpr int64_t kStride = kRows<Sum> + kSkew<Sum>;

  int64_t Depth() const { return conv_.KernelTaps() * conv_.GroupInChannels(); }

  // The samples that a block of rows needs: of its taps and of the offset
  // groups of its group.
  Points BlockPoints(int64_t group, int64_t block) const {
    const int64_t channels = conv_.GroupInChannels();
    const int64_t first_tap = rows_.Begin(block) / channels;
    const int64_t last_tap = (rows_.End(block) - 1) / channels;
    int64_t first = group * channels, count = channels;
    if (first_tap == last_tap) {
      first += rows_.Begin(block) % channels;
      count = rows_.Size(block);
    }
    return PointsOf(shape_, first, count, first_tap, last_tap - first_tap + 1);
  }

  void RunTask(int64_t group, int64_t block, int64_t slice,
               const Scratch& scratch) const {
    const auto* upstream = static_cast<const Element*>(args_.output);
    const int64_t o = conv_.out_channels;
    const int64_t of_group = conv_.GroupOutChannels();
    const int64_t rows = rows_.Size(block);
    const Columns columns = {group * conv_.GroupInChannels(),
                             conv_.GroupInChannels(), rows_.Begin(block),
                             rows_.End(block)};
    for (int64_t i = 0; i < rows; ++i) {
      scratch.c_rows[i] = sums_ + slice * conv_.FilterElements() +
                          (columns.begin + i) * o + group * of_group;
    }
    Points points = BlockPoints(group, block);
    const int64_t begin = slices_.Begin(slice), end = slices_.End(slice);
    for (int64_t p = begin; p < end; p += pixels_) {
      const int64_t depth = std::min(pixels_, end - p);
      points.first_pixel = p;
      points.pixels = depth;
      kernel_.locate(window_, points,
                     static_cast<const Element*>(args_.offsets),
                     static_cast<const Element*>(args_.mask), scratch.samples);
      kernel_.gather(window_, points, columns,
                     static_cast<const Element*>(args_.input), scratch.samples,
                     scratch.values, kStride);
      for (int64_t first = 0; first < of_group; first += kPanelColumns<Sum>) {
        const int64_t some = std::min(kPanelColumns<Sum>, of_group - first);
        PackPanels(gemm_, {0, depth, depth}, some,
                   upstream + p * o + group * of_group + first, o, 1,
                   scratch.panels);
        for (int64_t j = 0; j < some; j += gemm_.panel) {
          gemm_.by_columns(rows, std::min(gemm_.panel, some - j), depth,
                           scratch.values, kStride, scratch.panels + depth * j,
                           scratch.c_rows, first + j, p > begin);
        }
      }
    }
  }

  const DeformShape shape_;
  const ConvShape& conv_;
  const double macs_;
  const DeformArgs args_;
  const Window window_;
  const Kernel<Element>& kernel_;
  const GemmKernel<Sum>& gemm_;
  const Split rows_;    // of one group's filter
  const Split slices_;  // output pixels of the whole batch
  int64_t most_points_ = 1;
  int64_t pixels_;
  Arena arena_;
  bool direct_;    // whether the sums are the result
  Sum* partials_;  // a filter for each slice
  Sum* sums_;
  char* scratch_;
};

}  // namespace

template <typename Element>
int64_t FilterGradientWorkspace(const DeformProblem& problem, Isa isa,
                                int threads) {
  return FilterGradient<Element>(problem, DeformArgs(), isa, nullptr)
      .Workspace(threads);
}

template <typename Element>
void RunFilterGradient(const DeformProblem& problem, const DeformArgs& args,
                       Context* ctx) {
  FilterGradient<Element>(problem, args, ctx->isa, ctx->workspace).Run(ctx);
}

#define KCONV_INSTANTIATE(T)                                                   \
  template int64_t FilterGradientWorkspace<T>(const DeformProblem&, Isa, int); \
  template void RunFilterGradient<T>(const DeformProblem&, const DeformArgs&,  \
                                     Context*);
KCONV_INSTANTIATE(float)
KCONV_INSTANTIATE(double)
KCONV_INSTANTIATE(BFloat16)
KCONV_INSTANTIATE(Float16)
#undef KCONV_INSTANTIATE

}  // namespace kconv::deformable
