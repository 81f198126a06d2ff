// Filter gradient: the rows of the product are the filter's (tap, channel)
// pairs, its columns the output channels, and the sum runs over all pixels.
//
// The filter is cut into blocks, one a task. Where these are few, the pixels
// are cut into slices as well, and the slices' partial results are added in a
// fixed tree.

#include <type_traits>

#include "algorithms/gemm/blocking.h"
#include "algorithms/gemm/gemm.h"
#include "algorithms/gemm/patches.h"
#include "gemm/gemm.h"
#include "gemm/panels.h"
#include "slices.h"

namespace kconv::gemm {
namespace {

inline constexpr int64_t kBlockColumns = 128;
static_assert(kBlockColumns <= kColumns);

// The cut of the work: group x row block x column block x slice.
struct Cut {
  Split rows;     // of one group's filter
  Split columns;  // output channels of a group
  Split slices;   // pixels of the whole batch

  explicit Cut(const ConvShape& s)
      : rows(s.KernelTaps() * s.GroupInChannels(),
             CeilDivide(s.KernelTaps() * s.GroupInChannels(), kRows), kRowUnit),
        columns(s.GroupOutChannels(),
                CeilDivide(s.GroupOutChannels(), kBlockColumns), 64),
        slices(s.batch * s.OutputPixels(), 1, 1) {
    const int64_t blocks = s.groups * rows.count * columns.count;
    const int64_t parts =
        std::min(kWantedSlices / blocks, slices.total / kMinSlicePixels);
    slices = Split(slices.total, parts, 1);
  }
};

template <typename Element>
class FilterGradient {
 public:
  using Sum = SumType<Element>;

  FilterGradient(const Problem& problem, const ConvArgs& args, Context* ctx)
      : shape_(problem.shape),
        macs_(problem.Macs()),
        kernel_(GemmKernelFor<Sum>(ctx->isa)),
        patches_(InputPatches(problem.shape)),
        cut_(problem.shape),
        input_(static_cast<const Element*>(args.input)),
        gradient_(static_cast<const Element*>(args.output)),
        filter_(static_cast<Element*>(args.filter)),
        partials_(static_cast<Sum*>(ctx->workspace)),
        scratch_(static_cast<char*>(ctx->workspace) + PartialBytes(problem)) {}

  void Run(Context* ctx) {
    ctx->isa_ran = kernel_.isa;
    const int64_t tasks = shape_.groups * cut_.rows.count * cut_.columns.count *
                          cut_.slices.count;
    ctx->ParallelFor(tasks, macs_ / static_cast<double>(tasks) / kMacsPerSecond,
                     [&](int64_t begin, int64_t end, int worker) {
                       Scratch<Sum> scratch(scratch_, worker);
                       for (int64_t task = begin; task < end; ++task) {
                         RunTask(task, &scratch);
                       }
                     });
    if (cut_.slices.count > 1) {
      AddSlices(partials_, cut_.slices.count, shape_.FilterElements(), filter_,
                ctx);
    }
  }

 private:
  void RunTask(int64_t task, Scratch<Sum>* scratch) {
    const int64_t slice = task % cut_.slices.count;
    task /= cut_.slices.count;
    const int64_t column = cut_.columns.Begin(task % cut_.columns.count);
    const int64_t columns =
        cut_.columns.End(task % cut_.columns.count) - column;
    task /= cut_.columns.count;
    const int64_t row = cut_.rows.Begin(task % cut_.rows.count);
    const int64_t rows = cut_.rows.End(task % cut_.rows.count) - row;
    const int64_t group = task / cut_.rows.count;

    const int64_t o = shape_.out_channels;
    const int64_t offset = row * o + group * shape_.GroupOutChannels() + column;
    // Straight into the result where it holds the sum's type and is whole.
    const bool sliced = cut_.slices.count > 1;
    for (int64_t i = 0; i < rows; ++i) {
      if (sliced) {
        scratch->c_rows[i] =
            partials_ + slice * shape_.FilterElements() + offset + i * o;
      } else if constexpr (std::is_same_v<Element, Sum>) {
        scratch->c_rows[i] = filter_ + offset + i * o;
      } else {
        scratch->c_rows[i] = scratch->result + i * kColumns;
      }
    }
    const int64_t end = cut_.slices.End(slice);
    if (shape_.layout == Layout::kChannelsLast) {
      SumChannelsLast(group, row, rows, column, columns,
                      cut_.slices.Begin(slice), end, scratch);
    } else {
      SumChannelsFirst(group, row, rows, column, columns,
                       cut_.slices.Begin(slice), end, scratch);
    }
    if constexpr (!std::is_same_v<Element, Sum>) {
      if (sliced) return;
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          Narrow(scratch->c_rows[i][j], filter_ + offset + i * o + j);
        }
      }
    }
  }

  void SumChannelsLast(int64_t group, int64_t row, int64_t rows, int64_t column,
                       int64_t columns, int64_t begin, int64_t end,
                       Scratch<Sum>* scratch) {
    const PatchReader<Element> reader(patches_,
                                      input_ + group * patches_.channels);
    const Element* gradient =
        gradient_ + group * shape_.GroupOutChannels() + column;
    const int64_t o = shape_.out_channels;
    const int64_t stride = kRows + kSkew<Sum>;
    for (int64_t p = begin; p < end; p += kPixels<Sum>) {
      const int64_t depth = std::min(kPixels<Sum>, end - p);
      reader.CopyRows(p, depth, row, row + rows, scratch->block, stride);
      for (int64_t first = 0; first < columns; first += kPanelColumns<Sum>) {
        const int64_t some = std::min(kPanelColumns<Sum>, columns - first);
        PackPanels(kernel_, {0, depth, depth}, some, gradient + p * o + first,
                   o, 1, scratch->panels);
        for (int64_t j = 0; j < some; j += kernel_.panel) {
          kernel_.by_columns(rows, std::min(kernel_.panel, some - j), depth,
                             scratch->block, stride,
                             scratch->panels + depth * j, scratch->c_rows,
                             first + j, p > begin);
        }
      }
    }
  }

  void SumChannelsFirst(int64_t group, int64_t row, int64_t rows,
                        int64_t column, int64_t columns, int64_t begin,
                        int64_t end, Scratch<Sum>* scratch) {
    const int64_t pixels = shape_.OutputPixels();
    const PatchReader<Element> reader(
        patches_, input_ + group * patches_.channels * shape_.InputPixels());
    const int64_t stride = kDepth<Sum> + kSkew<Sum>;
    for (int64_t i = 0; i < rows; ++i) {
      scratch->a_rows[i] = scratch->block + i * stride;
    }
    for (int64_t p = begin; p < end;) {
      // A block of pixels stays within one image.
      const int64_t image = p / pixels;
      const int64_t depth =
          std::min({kDepth<Sum>, end - p, (image + 1) * pixels - p});
      reader.CopyPlanes(row, row + rows, p, depth, scratch->block, stride);
      const int64_t channel = image * shape_.out_channels +
                              group * shape_.GroupOutChannels() + column;
      const Element* gradient = gradient_ + channel * pixels + p % pixels;
      for (int64_t first = 0; first < columns; first += kPanelColumns<Sum>) {
        const int64_t some = std::min(kPanelColumns<Sum>, columns - first);
        PackPanels(kernel_, {0, depth, depth}, some, gradient + first * pixels,
                   1, pixels, scratch->panels);
        for (int64_t j = 0; j < some; j += kernel_.panel) {
          kernel_.by_rows(rows, std::min(kernel_.panel, some - j), depth,
                          scratch->a_rows, 0, scratch->panels + depth * j,
                          scratch->c_rows, first + j, p > begin);
        }
      }
      p += depth;
    }
  }

  const ConvShape& shape_;
  const double macs_;
  const GemmKernel<Sum>& kernel_;
  const Patches patches_;
  const Cut cut_;
  const Element* input_;
  const Element* gradient_;
  Element* filter_;
  Sum* partials_;
  char* scratch_;
};

}  // namespace

int64_t PartialBytes(const Problem& problem) {
  const Cut cut(problem.shape);
  if (cut.slices.count <= 1) return 0;
  const int64_t bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  return RoundUp(cut.slices.count * problem.shape.FilterElements() * bytes, 64);
}

template <typename Element>
void RunFilterGradient(const Problem& problem, const ConvArgs& args,
                       Context* ctx) {
  if (problem.shape.OutputElements() == 0) {
    ctx->isa_ran = GemmKernelFor<SumType<Element>>(ctx->isa).isa;
    std::fill_n(static_cast<Element*>(args.filter),
                problem.shape.FilterElements(), Element{});
    return;
  }
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

}  // namespace kconv::gemm
