// Forward and input gradient: every row of the product is a pixel (channels
// last) or a channel (channels first) of the image that is written.

#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>
#include <vector>

#include "algorithms/gemm/blocking.h"
#include "algorithms/gemm/gemm.h"
#include "algorithms/gemm/patches.h"
#include "gemm/gemm.h"
#include "gemm/panels.h"

namespace kconv::gemm {
namespace {

// Where the grid points of a phase are written.
struct Target {
  int64_t channels;  // of a group
  int64_t image_channels;
  int64_t size[kMaxSpatialDims];
  int64_t origin[kMaxSpatialDims];
  int64_t step[kMaxSpatialDims];

  int64_t Pixels() const { return size[0] * size[1] * size[2]; }
  bool Contiguous() const {
    return step[0] == 1 && step[1] == 1 && step[2] == 1;
  }
};

// One matrix product: the whole forward pass, or one phase of the input
// gradient.
struct Phase {
  Patches patches;
  Target target;
  int64_t first_task;
  int64_t first_depth;  // sum of the depths of the phases before
  // Where the sum is cut into blocks: 0, ..., Depth().
  std::vector<int64_t> cuts;
  bool in_place;  // whether each block is of one strip, and read where it lies

  int64_t Blocks() const { return static_cast<int64_t>(cuts.size()) - 1; }
};

// Strips of half a block or more are worth a block, or several, of their own:
// these are read where they lie. Shorter ones are copied side by side; but a
// 1x1 kernel is never copied.
//
// All strips are of one length: the taps that a phase meets in one dimension
// are spaced evenly, so either all neighbours join or none, and alike in every
// row.
template <typename Element>
void CutDepth(Phase* phase) {
  using Sum = SumType<Element>;
  const Patches& p = phase->patches;
  const int64_t depth = p.Depth();
  const int64_t strip = p.strips[0].taps * p.channels;
  phase->in_place = std::is_same_v<Element, Sum> &&
                    p.layout == Layout::kChannelsLast &&
                    (p.strips.size() == 1 || strip >= kDepth<Sum> / 2);
  const int64_t length = phase->in_place ? strip : depth;
  const int64_t block = CeilDivide(length, CeilDivide(length, kDepth<Sum>));
  for (int64_t begin = 0; begin < depth; begin += length) {
    for (int64_t cut = 0; cut < length; cut += block) {
      phase->cuts.push_back(begin + cut);
    }
  }
  phase->cuts.push_back(depth);
}

// Pixel of the target, numbered through the batch, of a grid point.
int64_t TargetPixel(const Phase& phase, int64_t number) {
  const Target& t = phase.target;
  if (t.Contiguous()) return number;
  const int64_t* grid = phase.patches.grid;
  const int64_t w = number % grid[2];
  number /= grid[2];
  const int64_t h = number % grid[1];
  number /= grid[1];
  const int64_t d = number % grid[0];
  const int64_t image = number / grid[0];
  return ((image * t.size[0] + t.origin[0] + d * t.step[0]) * t.size[1] +
          t.origin[1] + h * t.step[1]) *
             t.size[2] +
         t.origin[2] + w * t.step[2];
}

template <typename Element>
class ImagePass {
 public:
  using Sum = SumType<Element>;

  ImagePass(const Problem& problem, const ConvArgs& args, Context* ctx)
      : shape_(problem.shape),
        macs_(problem.Macs()),
        forward_(problem.pass == Pass::kForward),
        kernel_(GemmKernelFor<Sum>(ctx->isa)),
        packed_(PackedFilterBytes(problem, ctx->isa) > 0),
        packed_filter_(static_cast<Sum*>(ctx->workspace)),
        scratch_(static_cast<char*>(ctx->workspace) +
                 PackedFilterBytes(problem, ctx->isa)),
        source_(
            static_cast<const Element*>(forward_ ? args.input : args.output)),
        filter_(static_cast<const Element*>(args.filter)),
        bias_(static_cast<const Element*>(args.bias)),
        activation_(problem.epilogue.activation),
        finishes_(!problem.epilogue.Empty()),
        target_(static_cast<Element*>(forward_ ? args.output : args.input)) {
    if (forward_) {
      AddPhase(InputPatches(shape_), shape_.GroupOutChannels(),
               shape_.out_channels, shape_.output, nullptr);
      return;
    }
    const std::vector<int64_t> d = PhasesWithTaps(0);
    const std::vector<int64_t> h = PhasesWithTaps(1);
    const std::vector<int64_t> w = PhasesWithTaps(2);
    for (int64_t at_d : d) {
      for (int64_t at_h : h) {
        for (int64_t at_w : w) {
          const int64_t at[kMaxSpatialDims] = {at_d, at_h, at_w};
          AddPhase(PhasePatches(shape_, at), shape_.GroupInChannels(),
                   shape_.in_channels, shape_.input, at);
        }
      }
    }
    covered_ = Covers(d, 0) && Covers(h, 1) && Covers(w, 2);
    const int64_t count = static_cast<int64_t>(phases_.size());
    alternate_ = true;
    for (int64_t i = 0; i < count; ++i) {
      alternate_ &= phases_[i].first_task * count == tasks_ * i;
    }
  }

  void Run(Context* ctx) {
    ctx->isa_ran = kernel_.isa;
    if (!covered_ && shape_.InputElements() > 0) FillUncovered(ctx);
    if (tasks_ == 0) return;
    if (packed_) PackWholeFilter(ctx);
    ctx->ParallelFor(
        tasks_, macs_ / static_cast<double>(tasks_) / kMacsPerSecond,
        [&](int64_t begin, int64_t end, int worker) {
          Scratch<Sum> scratch(scratch_, worker);
          auto phase = std::prev(std::upper_bound(
              phases_.begin(), phases_.end(), begin,
              [](int64_t t, const Phase& p) { return t < p.first_task; }));
          for (int64_t task = begin; task < end; ++task) {
            if (alternate_) {
              const int64_t count = static_cast<int64_t>(phases_.size());
              RunTask(phases_[task % count], task / count, &scratch);
              continue;
            }
            while (phase + 1 != phases_.end() &&
                   task >= (phase + 1)->first_task) {
              ++phase;
            }
            RunTask(*phase, task - phase->first_task, &scratch);
          }
        });
  }

 private:
  void RunTask(const Phase& phase, int64_t task, Scratch<Sum>* scratch) {
    if (shape_.layout == Layout::kChannelsLast) {
      RunPixelRows(phase, task, scratch);
    } else {
      RunChannelRows(phase, task, scratch);
    }
  }

  // Tap k reaches the input pixels k * dilation - pad modulo the stride; where
  // the stride exceeds the kernel the others are met by no tap.
  std::vector<int64_t> PhasesWithTaps(int dim) const {
    std::vector<int64_t> phases;
    const int64_t stride = shape_.stride[dim];
    for (int64_t k = 0; k < shape_.kernel[dim]; ++k) {
      const int64_t phase =
          (k * shape_.dilation[dim] - shape_.pad_before[dim]) % stride;
      phases.push_back(phase < 0 ? phase + stride : phase);
    }
    std::sort(phases.begin(), phases.end());
    phases.erase(std::unique(phases.begin(), phases.end()), phases.end());
    while (!phases.empty() && phases.back() >= shape_.input[dim]) {
      phases.pop_back();
    }
    return phases;
  }

  bool Covers(const std::vector<int64_t>& phases, int dim) const {
    return static_cast<int64_t>(phases.size()) ==
           std::min(shape_.stride[dim], shape_.input[dim]);
  }

  // Writes what sums of nothing become, everywhere.
  void FillUncovered(Context* ctx) {
    const int64_t channels = shape_.in_channels;
    std::vector<Element> empty(channels);
    for (int64_t c = 0; c < channels; ++c) {
      Sum sum = 0, bias;
      Sum* const row = &sum;
      WidenBias(c, 1, &bias);
      if (finishes_) {
        kernel_.finish(activation_, &bias, /*of_rows=*/false, 1, &row, 0, 1);
      }
      Narrow(sum, &empty[c]);
    }
    // Runs of one channel, or of one pixel.
    const bool last = shape_.layout == Layout::kChannelsLast;
    const int64_t run = last ? channels : shape_.InputPixels();
    const int64_t runs = shape_.InputElements() / run;
    ctx->ParallelFor(
        runs, 1e-10 * static_cast<double>(run),
        [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            if (last) {
              std::copy(empty.begin(), empty.end(), target_ + i * run);
            } else {
              std::fill_n(target_ + i * run, run, empty[i % channels]);
            }
          }
        });
  }

  void AddPhase(Patches patches, int64_t channels, int64_t image_channels,
                const int64_t* size, const int64_t* origin) {
    Phase phase = {std::move(patches), {}, tasks_, 0, {}, false};
    CutDepth<Element>(&phase);
    if (!phases_.empty()) {
      phase.first_depth =
          phases_.back().first_depth + phases_.back().patches.Depth();
    }
    Target& t = phase.target;
    t.channels = channels;
    t.image_channels = image_channels;
    for (int i = 0; i < kMaxSpatialDims; ++i) {
      t.size[i] = size[i];
      t.origin[i] = origin ? origin[i] : 0;
      t.step[i] = origin ? shape_.stride[i] : 1;
    }
    tasks_ +=
        shape_.groups * (shape_.layout == Layout::kChannelsLast
                             ? PixelRows(phase).count * Columns(phase).count
                             : shape_.batch * ChannelRows(phase).count *
                                   PixelColumns(phase).count);
    phases_.push_back(std::move(phase));
  }

  // The bias of `count` channels from the first on; zeros if there is none.
  void WidenBias(int64_t first, int64_t count, Sum* to) const {
    for (int64_t i = 0; i < count; ++i) {
      to[i] = bias_ == nullptr ? Sum(0) : Widen(bias_[first + i]);
    }
  }

  // ----- Channels last: rows are pixels, columns channels. -----

  Split PixelRows(const Phase& phase) const {
    const int64_t pixels = shape_.batch * phase.patches.GridPixels();
    return Split(pixels, CeilDivide(pixels, packed_ ? kPackedRows : kRows),
                 kRowUnit);
  }

  Split Columns(const Phase& phase) const {
    const int64_t columns = phase.target.channels;
    const int64_t rows = shape_.groups * PixelRows(phase).count;
    int64_t parts = CeilDivide(columns, kColumns);
    if (rows * parts < kWantedTasks) {
      parts = std::min(CeilDivide(kWantedTasks, std::max<int64_t>(rows, 1)),
                       CeilDivide(columns, kMinColumns));
    }
    return Split(columns, parts, kernel_.panel);
  }

  void RunPixelRows(const Phase& phase, int64_t task, Scratch<Sum>* scratch) {
    const Patches& patches = phase.patches;
    const Split row_split = PixelRows(phase);
    const Split column_split = Columns(phase);
    const int64_t part = task % column_split.count;
    task /= column_split.count;
    const int64_t first = row_split.Begin(task % row_split.count);
    const int64_t rows = row_split.End(task % row_split.count) - first;
    const int64_t group = task / row_split.count;
    const int64_t column = column_split.Begin(part);
    const int64_t columns = column_split.End(part) - column;

    const Target& t = phase.target;
    Element* to = target_ + group * t.channels + column;
    auto target_row = [&](int64_t i) {
      return to + TargetPixel(phase, first + i) * t.image_channels;
    };
    constexpr bool kDirect = std::is_same_v<Element, Sum>;
    for (int64_t i = 0; i < rows; ++i) {
      if constexpr (kDirect) {
        scratch->c_rows[i] = target_row(i);
      } else {
        scratch->c_rows[i] = scratch->result + i * kColumns;
      }
    }

    const PatchReader<Element> reader(patches,
                                      source_ + group * patches.channels);
    for (int64_t block = 0; block < phase.Blocks(); ++block) {
      const int64_t begin = phase.cuts[block], end = phase.cuts[block + 1];
      ReadRows(reader, phase, first, rows, begin, end, scratch);
      MultiplyByFilter(phase, group, begin, end, rows, column, columns,
                       scratch);
    }
    if constexpr (!kDirect) {
      for (int64_t i = 0; i < rows; ++i) {
        Element* row = target_row(i);
        for (int64_t j = 0; j < columns; ++j) {
          Narrow(scratch->c_rows[i][j], row + j);
        }
      }
    }
  }

  // Points a_rows at elements [begin, end) of the patches.
  void ReadRows(const PatchReader<Element>& reader, const Phase& phase,
                int64_t first, int64_t rows, int64_t begin, int64_t end,
                Scratch<Sum>* scratch) const {
    const int64_t stride = kDepth<Sum> + kSkew<Sum>;
    if constexpr (std::is_same_v<Element, Sum>) {
      if (phase.in_place) {
        reader.PointAtRows(first, rows, begin, end, scratch->zeros,
                           scratch->block, stride, scratch->a_rows);
        return;
      }
    }
    reader.CopyRows(first, rows, begin, end, scratch->block, stride);
    for (int64_t i = 0; i < rows; ++i) {
      scratch->a_rows[i] = scratch->block + i * stride;
    }
  }

  // The panels of a group follow one another: blocks of the sum, then columns.
  Sum* PackedPanel(const Phase& phase, int64_t group, int64_t begin,
                   int64_t end, int64_t column) const {
    const int64_t padded = RoundUp(phase.target.channels, kernel_.lanes);
    const int64_t before = phase.first_depth * shape_.groups +
                           group * phase.patches.Depth() + begin;
    return packed_filter_ + before * padded + (end - begin) * column;
  }

  void PackWholeFilter(Context* ctx) {
    for (const Phase& phase : phases_) {
      const int64_t columns = phase.target.channels;
      ctx->ParallelFor(
          shape_.groups * phase.Blocks(), 1e-9 * kDepth<Sum> * columns,
          [&](int64_t first, int64_t last, int) {
            for (int64_t item = first; item < last; ++item) {
              const int64_t group = item / phase.Blocks();
              const int64_t block = item % phase.Blocks();
              const int64_t begin = phase.cuts[block];
              const int64_t end = phase.cuts[block + 1];
              PackFilter(phase.patches, group, begin, end, 0, columns,
                         PackedPanel(phase, group, begin, end, 0));
            }
          });
    }
  }

  // Adds the products with rows [begin, end) of the filter to the results.
  void MultiplyByFilter(const Phase& phase, int64_t group, int64_t begin,
                        int64_t end, int64_t rows, int64_t column,
                        int64_t columns, Scratch<Sum>* scratch) const {
    for (int64_t first = 0; first < columns; first += kPanelColumns<Sum>) {
      const int64_t some = std::min(kPanelColumns<Sum>, columns - first);
      const Sum* panels = scratch->panels;
      if (packed_) {
        panels = PackedPanel(phase, group, begin, end, column + first);
      } else {
        PackFilter(phase.patches, group, begin, end, column + first, some,
                   scratch->panels);
      }
      for (int64_t j = 0; j < some; j += kernel_.panel) {
        const int64_t width = std::min(kernel_.panel, some - j);
        kernel_.by_rows(rows, width, end - begin, scratch->a_rows, 0,
                        panels + (end - begin) * j, scratch->c_rows, first + j,
                        begin > 0);
        if (finishes_ && end == phase.patches.Depth()) {
          // Now, while this panel's sums are in the first-level cache.
          Sum bias[kPanelColumns<Sum>];
          WidenBias(group * phase.target.channels + column + first + j, width,
                    bias);
          kernel_.finish(activation_, bias, /*of_rows=*/false, rows,
                         scratch->c_rows, first + j, width);
        }
      }
    }
  }

  // Rows [begin, end) of the sum, columns of the target's channels.
  void PackFilter(const Patches& patches, int64_t group, int64_t begin,
                  int64_t end, int64_t column, int64_t columns,
                  Sum* panels) const {
    const int64_t o = shape_.out_channels;
    if (forward_) {
      // The sum runs as the filter lies: taps, then channels.
      PackPanels(
          kernel_, {0, end - begin, end - begin}, columns,
          filter_ + begin * o + group * shape_.GroupOutChannels() + column, o,
          1, panels);
      return;
    }
    for (int64_t k = begin; k < end;) {
      const int64_t tap = patches.filter_taps[k / patches.channels];
      const int64_t channel = k % patches.channels;
      const int64_t run = std::min(end - k, patches.channels - channel);
      PackPanels(kernel_, {k - begin, run, end - begin}, columns,
                 filter_ + (tap * shape_.GroupInChannels() + column) * o +
                     group * shape_.GroupOutChannels() + channel,
                 1, o, panels);
      k += run;
    }
  }

  // ----- Channels first: rows are channels, columns pixels. -----

  Split ChannelRows(const Phase& phase) const {
    const int64_t rows = phase.target.channels;
    return Split(rows, CeilDivide(rows, kRows), kRowUnit);
  }

  Split PixelColumns(const Phase& phase) const {
    const int64_t pixels = phase.patches.GridPixels();
    const int64_t rows =
        shape_.groups * shape_.batch * ChannelRows(phase).count;
    int64_t parts = CeilDivide(pixels, kColumns);
    if (rows * parts < kWantedTasks) {
      parts = std::min(CeilDivide(kWantedTasks, std::max<int64_t>(rows, 1)),
                       CeilDivide(pixels, kMinColumns));
    }
    return Split(pixels, parts, kernel_.panel);
  }

  void RunChannelRows(const Phase& phase, int64_t task, Scratch<Sum>* scratch) {
    const Patches& patches = phase.patches;
    const Split row_split = ChannelRows(phase);
    const Split column_split = PixelColumns(phase);
    const int64_t part = task % column_split.count;
    task /= column_split.count;
    const int64_t row = row_split.Begin(task % row_split.count);
    const int64_t rows = row_split.End(task % row_split.count) - row;
    task /= row_split.count;
    const int64_t image = task % shape_.batch;
    const int64_t group = task / shape_.batch;
    const int64_t pixels = patches.GridPixels();
    const int64_t column = column_split.Begin(part);
    const int64_t columns = column_split.End(part) - column;

    const Target& t = phase.target;
    Element* to =
        target_ +
        (image * t.image_channels + group * t.channels + row) * t.Pixels();
    const bool direct = std::is_same_v<Element, Sum> && t.Contiguous();
    for (int64_t i = 0; i < rows; ++i) {
      scratch->a_rows[i] = scratch->block + i * (kDepth<Sum> + kSkew<Sum>);
      if constexpr (std::is_same_v<Element, Sum>) {
        scratch->c_rows[i] = direct ? to + i * t.Pixels() + column
                                    : scratch->result + i * kColumns;
      } else {
        scratch->c_rows[i] = scratch->result + i * kColumns;
      }
    }

    Sum bias[kRows];
    if (finishes_) WidenBias(group * t.channels + row, rows, bias);
    const PatchReader<Element> reader(
        patches, source_ + group * patches.channels * patches.ImagePixels());
    for (int64_t block = 0; block < phase.Blocks(); ++block) {
      const int64_t begin = phase.cuts[block], end = phase.cuts[block + 1];
      CopyFilterRows(patches, group, row, rows, begin, end, scratch->block);
      for (int64_t j = 0; j < columns; j += kernel_.panel) {
        const int64_t width = std::min(kernel_.panel, columns - j);
        const int64_t padded = RoundUp(width, kernel_.lanes);
        if (padded != width) {
          std::fill_n(scratch->panels, (end - begin) * padded, Sum(0));
        }
        reader.CopyPlanes(begin, end, image * pixels + column + j, width,
                          scratch->panels, padded);
        kernel_.by_rows(rows, width, end - begin, scratch->a_rows, 0,
                        scratch->panels, scratch->c_rows, j, begin > 0);
        if (finishes_ && end == patches.Depth()) {
          kernel_.finish(activation_, bias, /*of_rows=*/true, rows,
                         scratch->c_rows, j, width);
        }
      }
    }
    if (direct) return;
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t pixel = TargetPixel(phase, column + j);
      for (int64_t i = 0; i < rows; ++i) {
        Narrow(scratch->c_rows[i][j], to + i * t.Pixels() + pixel);
      }
    }
  }

  // Row i: elements [begin, end) of the filter of the target's channel row + i.
  void CopyFilterRows(const Patches& patches, int64_t group, int64_t row,
                      int64_t rows, int64_t begin, int64_t end, Sum* to) const {
    const int64_t stride = kDepth<Sum> + kSkew<Sum>;
    const int64_t o = shape_.out_channels;
    for (int64_t k = begin; k < end; ++k, ++to) {
      const Element* from;
      int64_t row_stride;
      if (forward_) {
        from = filter_ + k * o + group * shape_.GroupOutChannels() + row;
        row_stride = 1;
      } else {
        const int64_t tap = patches.filter_taps[k / patches.channels];
        from = filter_ + (tap * shape_.GroupInChannels() + row) * o +
               group * shape_.GroupOutChannels() + k % patches.channels;
        row_stride = o;
      }
      for (int64_t i = 0; i < rows; ++i) {
        to[i * stride] = Widen(from[i * row_stride]);
      }
    }
  }

  const ConvShape& shape_;
  const double macs_;
  const bool forward_;
  const GemmKernel<Sum>& kernel_;
  const bool packed_;  // the whole filter before the first task
  Sum* packed_filter_;
  char* scratch_;
  const Element* source_;
  const Element* filter_;
  const Element* bias_;
  const Activation activation_;
  const bool finishes_;  // whether there is an epilogue
  Element* target_;
  std::vector<Phase> phases_;
  int64_t tasks_ = 0;
  // Whether phases take turns: they read the same pixels, and write neighbours.
  // Not so where some have more tasks than others.
  bool alternate_ = false;
  bool covered_ = true;  // whether the phases reach every pixel of the target
};

}  // namespace

int64_t PackedFilterBytes(const Problem& problem, Isa isa) {
  const ConvShape& s = problem.shape;
  const bool forward = problem.pass == Pass::kForward;
  if (s.layout != Layout::kChannelsLast) return 0;
  // Pixels of one phase. Where few share it, a panel is packed as it is used.
  int64_t pixels = s.batch;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    pixels *= forward ? s.output[i] : CeilDivide(s.input[i], s.stride[i]);
  }
  if (pixels <= 2 * kRows) return 0;
  const int64_t element = problem.dtype == DType::kFloat64 ? 8 : 4;
  const int64_t lanes = problem.dtype == DType::kFloat64
                            ? GemmKernelFor<double>(isa).lanes
                            : GemmKernelFor<float>(isa).lanes;
  const int64_t columns = forward ? s.GroupOutChannels() : s.GroupInChannels();
  const int64_t depth =
      s.KernelTaps() * (forward ? s.GroupInChannels() : s.GroupOutChannels());
  const int64_t limit = kMaxPackedBytes / element;
  if (depth > limit / s.groups / RoundUp(columns, lanes)) return 0;
  return RoundUp(s.groups * depth * RoundUp(columns, lanes) * element, 64);
}

template <typename Element>
void RunImagePass(const Problem& problem, const ConvArgs& args, Context* ctx) {
  ImagePass<Element>(problem, args, ctx).Run(ctx);
}

template void RunImagePass<float>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<double>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<BFloat16>(const Problem&, const ConvArgs&, Context*);
template void RunImagePass<Float16>(const Problem&, const ConvArgs&, Context*);

}  // namespace kconv::gemm
