// Forward: for a block of output pixels the values of some columns are gathered
// into rows, and these times the packed filter are added to the output.

#include "deformable/passes.h"

namespace kconv::deformable {
namespace {

template <typename Element>
class Forward {
 public:
  using Sum = SumType<Element>;

  Forward(const DeformProblem& problem, const DeformArgs& args, Isa isa,
          void* workspace)
      : shape_(problem.shape),
        conv_(problem.shape.conv),
        epilogue_(problem.epilogue),
        macs_(problem.Macs()),
        args_(args),
        window_(WindowOf(problem.shape)),
        kernel_(KernelFor<Element>(isa)),
        gemm_(GemmKernelFor<Sum>(isa)),
        depth_(conv_.KernelTaps() * conv_.GroupInChannels()),
        depths_(depth_, CeilDivide(depth_, kDepth<Sum>), kSkew<Sum>),
        blocks_(PixelBlocks(shape_.Pixels(), shape_.Points())),
        arena_(workspace) {
    width_ = RoundUp(conv_.GroupOutChannels(), gemm_.lanes);
    filter_ = arena_.Take<Sum>(conv_.groups * depth_ * width_);
    bias_ = arena_.Take<Sum>(conv_.out_channels);
    scratch_ = arena_.Take<char>(0);
  }

  // Bytes for so many workers.
  int64_t Workspace(int threads) const {
    Arena arena(nullptr);
    static_cast<void>(Scratch(this, &arena));
    return arena_.bytes() + threads * arena.bytes();
  }

  void Run(Context* ctx) {
    PackFilter(ctx);
    for (int64_t i = 0; i < conv_.out_channels; ++i) {
      bias_[i] = epilogue_.bias ? Widen(Bias()[i]) : Sum(0);
    }
    ctx->ParallelFor(
        blocks_.count,
        macs_ / static_cast<double>(blocks_.count) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int worker) {
          Arena arena(nullptr);
          static_cast<void>(Scratch(this, &arena));
          Arena own(scratch_ + worker * arena.bytes());
          const Scratch scratch(this, &own);
          for (int64_t block = begin; block < end; ++block) {
            RunBlock(blocks_.Begin(block), blocks_.Size(block), scratch);
          }
        });
  }

 private:
  // Of one worker.
  struct Scratch {
    Sample<Sum>* samples;
    Sum* values;  // rows of columns
    Sum* result;  // rows of output channels, of types that are no sums
    const Sum** a_rows;
    Sum** c_rows;

    Scratch(const Forward* pass, Arena* arena) {
      const int64_t rows = pass->blocks_.size;
      samples = arena->Take<Sample<Sum>>(rows * pass->shape_.Points());
      values = arena->Take<Sum>(rows * kStride);
      result = arena->Take<Sum>(kInPlace ? 0 : rows * pass->conv_.out_channels);
      a_rows = arena->Take<const Sum*>(rows);
      c_rows = arena->Take<Sum*>(rows);
    }
  };

  static constexpr bool kInPlace = std::is_same_v<Element, Sum>;
  static constexpr int64_t kStride = kDepth<Sum> + kSkew<Sum>;

  const Element* Bias() const {
    return static_cast<const Element*>(args_.bias);
  }

  // Where the panels of a group's block of depth begin.
  Sum* Panels(int64_t group, int64_t begin) const {
    return filter_ + (group * depth_ + begin) * width_;
  }

  void PackFilter(Context* ctx) {
    const auto* filter = static_cast<const Element*>(args_.filter);
    const int64_t columns = conv_.GroupOutChannels();
    ctx->ParallelFor(
        conv_.groups * depths_.count,
        1e-9 * static_cast<double>(depths_.size * columns),
        [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t group = i / depths_.count;
            const int64_t row = depths_.Begin(i % depths_.count);
            const int64_t rows = depths_.Size(i % depths_.count);
            PackPanels(gemm_, {0, rows, rows}, columns,
                       filter + row * conv_.out_channels + group * columns,
                       conv_.out_channels, 1, Panels(group, row));
          }
        });
  }

  void RunBlock(int64_t first, int64_t rows, const Scratch& scratch) const {
    const auto* offsets = static_cast<const Element*>(args_.offsets);
    const auto* mask = static_cast<const Element*>(args_.mask);
    const auto* input = static_cast<const Element*>(args_.input);
    auto* output = static_cast<Element*>(args_.result);
    const int64_t channels = conv_.out_channels;
    Points points =
        PointsOf(shape_, 0, conv_.in_channels, 0, conv_.KernelTaps());
    points.first_pixel = first;
    points.pixels = rows;
    kernel_.locate(window_, points, offsets, mask, scratch.samples);
    for (int64_t i = 0; i < rows; ++i) {
      scratch.a_rows[i] = scratch.values + i * kStride;
      if constexpr (kInPlace) {
        scratch.c_rows[i] = output + (first + i) * channels;
      } else {
        scratch.c_rows[i] = scratch.result + i * channels;
      }
    }
    const int64_t of_group = conv_.GroupOutChannels();
    for (int64_t group = 0; group < conv_.groups; ++group) {
      for (int64_t block = 0; block < depths_.count; ++block) {
        const int64_t begin = depths_.Begin(block), end = depths_.End(block);
        const Columns columns = {group * conv_.GroupInChannels(),
                                 conv_.GroupInChannels(), begin, end};
        kernel_.gather(window_, points, columns, input, scratch.samples,
                       scratch.values, kStride);
        const Sum* panels = Panels(group, begin);
        for (int64_t j = 0; j < of_group; j += gemm_.panel) {
          gemm_.by_rows(rows, std::min(gemm_.panel, of_group - j), end - begin,
                        scratch.a_rows, 0, panels + (end - begin) * j,
                        scratch.c_rows, group * of_group + j, begin > 0);
        }
      }
    }
    if (!epilogue_.Empty()) {
      gemm_.finish(epilogue_.activation, bias_, /*of_rows=*/false, rows,
                   scratch.c_rows, 0, channels);
    }
    if constexpr (!kInPlace) {
      NarrowRow(scratch.result, output + first * channels, rows * channels);
    }
  }

  const DeformShape shape_;
  const ConvShape& conv_;
  const Epilogue epilogue_;
  const double macs_;
  const DeformArgs args_;
  const Window window_;
  const Kernel<Element>& kernel_;
  const GemmKernel<Sum>& gemm_;
  const int64_t depth_;  // taps x channels of a group
  const Split depths_;   // the blocks that it is gathered in
  const Split blocks_;   // of output pixels
  Arena arena_;
  int64_t width_;  // of the panels of a group
  Sum* filter_;
  Sum* bias_;
  char* scratch_;
};

}  // namespace

template <typename Element>
int64_t ForwardWorkspace(const DeformProblem& problem, Isa isa, int threads) {
  return Forward<Element>(problem, DeformArgs(), isa, nullptr)
      .Workspace(threads);
}

template <typename Element>
void RunForward(const DeformProblem& problem, const DeformArgs& args,
                Context* ctx) {
  Forward<Element>(problem, args, ctx->isa, ctx->workspace).Run(ctx);
}

#define KCONV_INSTANTIATE(T)                                            \
  template int64_t ForwardWorkspace<T>(const DeformProblem&, Isa, int); \
  template void RunForward<T>(const DeformProblem&, const DeformArgs&,  \
                              Context*);
KCONV_INSTANTIATE(float)
KCONV_INSTANTIATE(double)
KCONV_INSTANTIATE(BFloat16)
KCONV_INSTANTIATE(Float16)
#undef KCONV_INSTANTIATE

}  // namespace kconv::deformable
