// Gradients by the input, the offsets and the mask: the gradient of the output
// times the transposed filter gives those by the sampled values, and these are
// scattered.
//
// Several points read one pixel, so one worker adds all that a pixel gets: an
// item of work is an image and a slice of its channels, and goes through the
// output pixels in order. An offset serves many channels. Where their slices
// are several, each keeps sums of its own, and these are added in a fixed tree.

#include <vector>

#include "deformable/passes.h"
#include "slices.h"

namespace kconv::deformable {
namespace {

// Channels of a slice, at most, and of one that is made for parallelism.
inline constexpr int64_t kMostSliceChannels = 256;
inline constexpr int64_t kLeastSliceChannels = 32;
inline constexpr int64_t kWantedItems = 16;

// Columns that a product has at a time, about.
inline constexpr int64_t kColumns = 512;

// The slices of the channels. Each is a part of an offset group, or several
// whole ones.
struct Slices {
  Split groups;  // the offset groups, cut into those of a slice
  Split parts;   // the channels of an offset group, cut into parts
  int64_t count;

  explicit Slices(const DeformShape& shape) {
    const int64_t channels = shape.OffsetGroupChannels();
    const int64_t wanted = CeilDivide(kWantedItems, shape.conv.batch);
    const int64_t size = std::clamp(CeilDivide(shape.conv.in_channels, wanted),
                                    kLeastSliceChannels, kMostSliceChannels);
    parts = Split(channels, CeilDivide(channels, size),
                  channels > size ? kLeastSliceChannels : 1);
    const int64_t of_slice = std::max<int64_t>(1, size / channels);
    groups = Split(shape.offset_groups,
                   CeilDivide(shape.offset_groups, of_slice), 1);
    count = groups.count * parts.count;
  }

  int64_t Part(int64_t slice) const { return slice % parts.count; }
  int64_t Begin(int64_t slice) const {
    return groups.Begin(slice / parts.count) * parts.total +
           parts.Begin(Part(slice));
  }
  int64_t Size(int64_t slice) const {
    return (groups.Size(slice / parts.count) - 1) * parts.total +
           parts.Size(Part(slice));
  }
  int64_t MostGroups() const { return groups.size; }
};

// A matrix product: the channels that a slice has of a group, for some taps.
struct Product {
  int64_t slice, group;
  int64_t channel, channels;  // of the input
  int64_t tap, taps;
  int64_t panels;  // where they begin

  int64_t Columns() const { return taps * channels; }
};

template <typename Element>
class ImageGradient {
 public:
  using Sum = SumType<Element>;

  ImageGradient(const DeformProblem& problem, const DeformArgs& args, Isa isa,
                void* workspace)
      : shape_(problem.shape),
        conv_(problem.shape.conv),
        has_mask_(problem.mask),
        macs_(problem.Macs()),
        args_(args),
        window_(WindowOf(problem.shape)),
        kernel_(KernelFor<Element>(isa)),
        gemm_(GemmKernelFor<Sum>(isa)),
        slices_(problem.shape),
        depths_(conv_.GroupOutChannels(),
                CeilDivide(conv_.GroupOutChannels(), kDepth<Sum>), kSkew<Sum>),
        blocks_(PixelBlocks(conv_.OutputPixels(),
                            slices_.MostGroups() * conv_.KernelTaps())),
        arena_(workspace) {
    int64_t panels = 0;
    for (int64_t slice = 0; slice < slices_.count; ++slice) {
      AddProducts(slice, &panels);
    }
    filter_ = arena_.Take<Sum>(panels);
    if (slices_.parts.count > 1) {
      const int64_t points =
          slices_.parts.count * shape_.Pixels() * shape_.Points();
      offset_partials_ = arena_.Take<Sum>(2 * points);
      mask_partials_ = arena_.Take<Sum>(has_mask_ ? points : 0);
    }
    scratch_ = arena_.Take<char>(0);
  }

  // No more workers than there is work: each may have a plane.
  int64_t Workspace(int threads) const {
    Arena arena(nullptr);
    static_cast<void>(Scratch(this, &arena));
    const auto products = static_cast<int64_t>(products_.size());
    const int64_t workers =
        std::min<int64_t>(threads, std::max(Items(), products));
    return arena_.bytes() + workers * arena.bytes();
  }

  void Run(Context* ctx) {
    PackFilter(ctx);
    const int64_t items = Items();
    ctx->ParallelFor(items, macs_ / static_cast<double>(items) / kMacsPerSecond,
                     [&](int64_t begin, int64_t end, int worker) {
                       Arena arena(nullptr);
                       static_cast<void>(Scratch(this, &arena));
                       Arena own(scratch_ + worker * arena.bytes());
                       const Scratch scratch(this, &own);
                       for (int64_t item = begin; item < end; ++item) {
                         RunItem(item / slices_.count, item % slices_.count,
                                 scratch);
                       }
                     });
    if (slices_.parts.count > 1) {
      const int64_t points = shape_.Pixels() * shape_.Points();
      AddSlices(offset_partials_, slices_.parts.count, 2 * points, ByOffsets(),
                ctx);
      if (has_mask_) {
        AddSlices(mask_partials_, slices_.parts.count, points, ByMask(), ctx);
      }
    }
  }

 private:
  static constexpr bool kInPlace = std::is_same_v<Element, Sum>;

  struct Scratch {
    Sample<Sum>* samples;
    Sum* gradients;    // by dy, dx and the mask of each sample
    Sum* values;       // the gradients by the sampled values
    Sum* upstream;     // rows of output channels, of types that are no sums
    Sum* plane;        // the slice's gradient by the image, of the same
    Element* columns;  // of the filter, to pack
    const Sum** a_rows;
    Sum** c_rows;

    Scratch(const ImageGradient* pass, Arena* arena) {
      const int64_t rows = pass->blocks_.size;
      const int64_t points =
          rows * pass->slices_.MostGroups() * pass->conv_.KernelTaps();
      samples = arena->Take<Sample<Sum>>(points);
      gradients = arena->Take<Sum>(3 * points);
      values = arena->Take<Sum>(rows * pass->stride_);
      upstream =
          arena->Take<Sum>(kInPlace ? 0 : rows * pass->conv_.out_channels);
      plane = arena->Take<Sum>(
          kInPlace ? 0 : pass->conv_.InputPixels() * pass->most_channels_);
      columns = arena->Take<Element>(pass->gemm_.panel * kDepth<Sum>);
      a_rows = arena->Take<const Sum*>(rows);
      c_rows = arena->Take<Sum*>(rows);
    }
  };

  int64_t Items() const { return conv_.batch * slices_.count; }

  Element* ByOffsets() const {
    return static_cast<Element*>(args_.offsets_gradient);
  }
  Element* ByMask() const { return static_cast<Element*>(args_.mask_gradient); }

  void AddProducts(int64_t slice, int64_t* panels) {
    const int64_t begin = slices_.Begin(slice);
    const int64_t end = begin + slices_.Size(slice);
    const int64_t of_group = conv_.GroupInChannels();
    most_channels_ = std::max(most_channels_, end - begin);
    for (int64_t channel = begin; channel < end;) {
      Product product = {};
      product.slice = slice;
      product.group = channel / of_group;
      product.channel = channel;
      product.channels =
          std::min(end, (product.group + 1) * of_group) - channel;
      const int64_t taps = std::max<int64_t>(1, kColumns / product.channels);
      for (int64_t tap = 0; tap < conv_.KernelTaps(); tap += taps) {
        product.tap = tap;
        product.taps = std::min(taps, conv_.KernelTaps() - tap);
        product.panels = *panels;
        const int64_t width = RoundUp(product.Columns(), gemm_.lanes);
        *panels += conv_.GroupOutChannels() * width;
        stride_ =
            std::max(stride_, RoundUp(width, 2 * kSkew<Sum>) + kSkew<Sum>);
        products_.push_back(product);
      }
      channel += product.channels;
    }
  }

  // A column is the filter's row of a tap and a channel. A panel's are copied
  // side by side, and transposed.
  void PackFilter(Context* ctx) {
    const double columns = static_cast<double>(conv_.FilterElements()) /
                           static_cast<double>(products_.size());
    ctx->ParallelFor(static_cast<int64_t>(products_.size()), 1e-9 * columns,
                     [&](int64_t begin, int64_t end, int worker) {
                       Arena arena(nullptr);
                       static_cast<void>(Scratch(this, &arena));
                       Arena own(scratch_ + worker * arena.bytes());
                       const Scratch scratch(this, &own);
                       for (int64_t i = begin; i < end; ++i) {
                         PackProduct(products_[i], scratch.columns);
                       }
                     });
  }

  void PackProduct(const Product& product, Element* copy) const {
    const auto* filter = static_cast<const Element*>(args_.filter);
    const int64_t of_group = conv_.GroupInChannels();
    const int64_t row =
        product.tap * of_group + product.channel - product.group * of_group;
    const int64_t width = RoundUp(product.Columns(), gemm_.lanes);
    for (int64_t block = 0; block < depths_.count; ++block) {
      const int64_t first = depths_.Begin(block), depth = depths_.Size(block);
      const Element* from =
          filter + product.group * conv_.GroupOutChannels() + first;
      Sum* panels = filter_ + product.panels + first * width;
      for (int64_t j = 0; j < product.Columns(); j += gemm_.panel) {
        const int64_t count = std::min(gemm_.panel, product.Columns() - j);
        for (int64_t l = 0; l < count; ++l) {
          const int64_t tap = (j + l) / product.channels;
          const int64_t channel = (j + l) % product.channels;
          std::copy_n(
              from + (row + tap * of_group + channel) * conv_.out_channels,
              depth, copy + l * depth);
        }
        PackPanels(gemm_, {0, depth, depth}, count, copy, 1, depth,
                   panels + depth * j);
      }
    }
  }

  void RunItem(int64_t image, int64_t slice, const Scratch& scratch) const {
    const int64_t channel = slices_.Begin(slice);
    const int64_t channels = slices_.Size(slice);
    const int64_t pixels = conv_.InputPixels();
    auto* result = static_cast<Element*>(args_.result) +
                   image * pixels * conv_.in_channels + channel;
    Plane<Sum> plane = {nullptr, image * pixels, channel, 0};
    if constexpr (kInPlace) {
      plane.data = result;
      plane.stride = conv_.in_channels;
    } else {
      plane.data = scratch.plane;
      plane.stride = channels;
    }
    for (int64_t p = 0; p < pixels; ++p) {
      std::fill_n(plane.data + p * plane.stride, channels, Sum(0));
    }
    for (int64_t block = 0; block < blocks_.count; ++block) {
      RunBlock(image * conv_.OutputPixels() + blocks_.Begin(block),
               blocks_.Size(block), slice, plane, scratch);
    }
    if constexpr (!kInPlace) {
      for (int64_t p = 0; p < pixels; ++p) {
        NarrowRow(plane.data + p * channels, result + p * conv_.in_channels,
                  channels);
      }
    }
  }

  void RunBlock(int64_t first, int64_t rows, int64_t slice,
                const Plane<Sum>& plane, const Scratch& scratch) const {
    const auto* input = static_cast<const Element*>(args_.input);
    const auto* upstream =
        static_cast<const Element*>(args_.output) + first * conv_.out_channels;
    Points points = PointsOf(shape_, slices_.Begin(slice), slices_.Size(slice),
                             0, conv_.KernelTaps());
    points.first_pixel = first;
    points.pixels = rows;
    kernel_.locate(window_, points, static_cast<const Element*>(args_.offsets),
                   static_cast<const Element*>(args_.mask), scratch.samples);
    std::fill_n(scratch.gradients, 3 * rows * points.OfPixel(), Sum(0));
    for (int64_t i = 0; i < rows; ++i) {
      if constexpr (kInPlace) {
        scratch.a_rows[i] = upstream + i * conv_.out_channels;
      } else {
        scratch.a_rows[i] = scratch.upstream + i * conv_.out_channels;
      }
      scratch.c_rows[i] = scratch.values + i * stride_;
    }
    if constexpr (!kInPlace) {
      WidenRow(upstream, scratch.upstream, rows * conv_.out_channels);
    }
    auto product = std::lower_bound(
        products_.begin(), products_.end(), slice,
        [](const Product& p, int64_t wanted) { return p.slice < wanted; });
    for (; product != products_.end() && product->slice == slice; ++product) {
      Multiply(*product, rows, scratch);
      // The taps of a product are columns of its channels.
      const Columns columns = {
          product->channel, product->channels, product->tap * product->channels,
          (product->tap + product->taps) * product->channels};
      kernel_.scatter(window_, points, columns, input, scratch.samples,
                      scratch.values, stride_, plane, scratch.gradients);
    }
    WriteGradients(points, slices_.Part(slice), scratch.gradients);
  }

  void Multiply(const Product& product, int64_t rows,
                const Scratch& scratch) const {
    const int64_t columns = product.Columns();
    const int64_t width = RoundUp(columns, gemm_.lanes);
    for (int64_t block = 0; block < depths_.count; ++block) {
      const int64_t first = depths_.Begin(block), depth = depths_.Size(block);
      const Sum* panels = filter_ + product.panels + first * width;
      for (int64_t j = 0; j < columns; j += gemm_.panel) {
        gemm_.by_rows(rows, std::min(gemm_.panel, columns - j), depth,
                      scratch.a_rows,
                      product.group * conv_.GroupOutChannels() + first,
                      panels + depth * j, scratch.c_rows, j, block > 0);
      }
    }
  }

  void WriteGradients(const Points& points, int64_t part,
                      const Sum* gradients) const {
    const bool partial = slices_.parts.count > 1;
    const int64_t of_part = shape_.Pixels() * shape_.Points();
    const int64_t run = points.OfPixel();  // groups and all taps: side by side
    for (int64_t i = 0; i < points.pixels; ++i) {
      const int64_t to = (points.first_pixel + i) * shape_.Points() +
                         points.first_group * conv_.KernelTaps();
      for (int64_t t = 0; t < run; ++t, gradients += 3) {
        if (partial) {
          Sum* of_offsets = offset_partials_ + 2 * (part * of_part + to + t);
          of_offsets[0] = gradients[0];
          of_offsets[1] = gradients[1];
          if (has_mask_) {
            mask_partials_[part * of_part + to + t] = gradients[2];
          }
        } else {
          Narrow(gradients[0], ByOffsets() + 2 * (to + t));
          Narrow(gradients[1], ByOffsets() + 2 * (to + t) + 1);
          if (has_mask_) Narrow(gradients[2], ByMask() + to + t);
        }
      }
    }
  }

  const DeformShape shape_;
  const ConvShape& conv_;
  const bool has_mask_;
  const double macs_;
  const DeformArgs args_;
  const Window window_;
  const Kernel<Element>& kernel_;
  const GemmKernel<Sum>& gemm_;
  const Slices slices_;
  const Split depths_;             // the output channels of a group
  const Split blocks_;             // the output pixels of an image
  std::vector<Product> products_;  // ordered by slice
  int64_t most_channels_ = 0;      // of a slice
  int64_t stride_ = 0;             // of the rows of a product
  Arena arena_;
  Sum* filter_;
  Sum* offset_partials_ = nullptr;
  Sum* mask_partials_ = nullptr;
  char* scratch_;
};

}  // namespace

template <typename Element>
int64_t ImageGradientWorkspace(const DeformProblem& problem, Isa isa,
                               int threads) {
  return ImageGradient<Element>(problem, DeformArgs(), isa, nullptr)
      .Workspace(threads);
}

template <typename Element>
void RunImageGradient(const DeformProblem& problem, const DeformArgs& args,
                      Context* ctx) {
  ImageGradient<Element>(problem, args, ctx->isa, ctx->workspace).Run(ctx);
}

#define KCONV_INSTANTIATE(T)                                                  \
  template int64_t ImageGradientWorkspace<T>(const DeformProblem&, Isa, int); \
  template void RunImageGradient<T>(const DeformProblem&, const DeformArgs&,  \
                                    Context*);
KCONV_INSTANTIATE(float)
KCONV_INSTANTIATE(double)
KCONV_INSTANTIATE(BFloat16)
KCONV_INSTANTIATE(Float16)
#undef KCONV_INSTANTIATE

}  // namespace kconv::deformable
