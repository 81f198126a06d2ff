// Which kernels run for a problem, and by what: a GPU, or the host in its
// place.

#ifndef KCONV_DEFORMABLE_CUDA_RUN_H_
#define KCONV_DEFORMABLE_CUDA_RUN_H_

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "cuda/slices.h"
#include "deformable/arena.h"
#include "deformable/cuda_collect.h"
#include "deformable/cuda_filter.h"
#include "deformable/cuda_forward.h"
#include "deformable/cuda_locate.h"
#include "deformable/cuda_plan.h"
#include "deformable/cuda_points.h"
#include "deformable/cuda_sampler.h"
#include "deformable/cuda_sort.h"
#include "deformable/cuda_values.h"
#include "deformable/deformable.h"
#include "deformable/window.h"
#include "elements.h"

namespace kconv::deformable {

// A size that CudaRefusal has bounded.
inline int32_t Small(int64_t size) { return static_cast<int32_t>(size); }

// Launches kernels one after the other, until one fails.
template <typename Launcher>
class CudaQueue {
 public:
  explicit CudaQueue(const Launcher& launch) : launch_(launch) {}

  template <typename Kernel>
  void Put(const Kernel& kernel) {
    if (error_ == nullptr) error_ = launch_(kernel, kernel.Launch());
  }
  const char* error() const { return error_; }

 private:
  const Launcher& launch_;
  const char* error_ = nullptr;
};

// What the passes have in common.
template <typename Element>
class CudaPass {
 public:
  using Sum = SumType<Element>;

  CudaPass(const DeformProblem& problem, const DeformArgs& args,
           void* workspace)
      : problem_(problem),
        shape_(problem.shape),
        conv_(problem.shape.conv),
        args_(args),
        arena_(workspace),
        samples_(arena_.Take<Sample<Sum>>(shape_.Pixels() * shape_.Points())) {}

  int64_t Workspace() const { return arena_.bytes(); }

 protected:
  CudaLocate<Element> Locate() const {
    CudaLocate<Element> kernel = {};
    kernel.window = WindowOf(shape_);
    kernel.taps = Small(conv_.KernelTaps());
    kernel.count = Small(shape_.Pixels() * shape_.Points());
    kernel.offsets = static_cast<const Element*>(args_.offsets);
    kernel.mask =
        problem_.mask ? static_cast<const Element*>(args_.mask) : nullptr;
    kernel.samples = samples_;
    return kernel;
  }

  CudaSampler<Element> Sampler() const {
    CudaSampler<Element> sampler;
    sampler.input = Input();
    sampler.samples = samples_;
    sampler.channels = conv_.in_channels;
    sampler.width = conv_.input[2];
    sampler.taps = conv_.KernelTaps();
    sampler.points = shape_.Points();
    sampler.group_channels = Small(conv_.GroupInChannels());
    sampler.offset_group_channels = Small(shape_.OffsetGroupChannels());
    sampler.columns = Small(conv_.KernelTaps() * conv_.GroupInChannels());
    sampler.whole = WholeChannels({args_.input});
    return sampler;
  }

  // Whether four channels of the input side by side share their samples and
  // their group, and four filters their group; and can be loaded at once.
  bool WholeChannels(std::initializer_list<const void*> arrays) const {
    return conv_.GroupInChannels() % 4 == 0 &&
           shape_.OffsetGroupChannels() % 4 == 0 && Aligned(arrays);
  }
  bool WholeFilters(std::initializer_list<const void*> arrays) const {
    return conv_.GroupOutChannels() % 4 == 0 && Aligned(arrays);
  }

  const Element* Input() const {
    return static_cast<const Element*>(args_.input);
  }

  const DeformProblem problem_;
  const DeformShape& shape_ = problem_.shape;
  const ConvShape& conv_ = shape_.conv;
  const DeformArgs args_;
  Arena arena_;
  Sample<Sum>* samples_;

 private:
  static bool Aligned(std::initializer_list<const void*> arrays) {
    for (const void* array : arrays) {
      if (reinterpret_cast<uintptr_t>(array) % kFourAlignment<Element> != 0) {
        return false;
      }
    }
    return true;
  }
};

template <typename Element>
class CudaForwardPass : public CudaPass<Element> {
 public:
  using typename CudaPass<Element>::Sum;

  CudaForwardPass(const DeformProblem& problem, const DeformArgs& args,
                  void* workspace)
      : CudaPass<Element>(problem, args, workspace), plan_(this->shape_) {
    if (plan_.slices.count > 1) {
      partials_ = this->arena_.template Take<Sum>(plan_.slices.count *
                                                  this->conv_.OutputElements());
    }
  }

  template <typename Launcher>
  const char* Run(const Launcher& launch) const {
    const auto& conv = this->conv_;
    const auto& args = this->args_;
    CudaQueue<Launcher> queue(launch);
    queue.Put(this->Locate());
    CudaForward<Element> kernel;
    kernel.tile = plan_.tiling.tile;
    kernel.sampler = this->Sampler();
    kernel.pixels = Small(this->shape_.Pixels());
    kernel.groups = Small(conv.groups);
    kernel.row_tiles = Small(plan_.tiling.row_tiles);
    kernel.column_tiles = Small(plan_.tiling.column_tiles);
    kernel.slices = Small(plan_.slices.count);
    kernel.slice_columns = Small(plan_.slices.size);
    kernel.filters = Small(conv.out_channels);
    kernel.group_filters = Small(conv.GroupOutChannels());
    kernel.whole = this->WholeFilters({args.filter, args.result});
    kernel.filter = static_cast<const Element*>(args.filter);
    kernel.bias = static_cast<const Element*>(args.bias);
    kernel.activation = this->problem_.epilogue.activation;
    kernel.output = static_cast<Element*>(args.result);
    kernel.partials = partials_;
    queue.Put(kernel);
    if (partials_ != nullptr) {
      const CudaAddForward<Element> add = {
          partials_,   kernel.slices,     conv.OutputElements(), kernel.filters,
          kernel.bias, kernel.activation, kernel.output};
      queue.Put(add);
    }
    return queue.error();
  }

 private:
  const CudaForwardPlan<Sum> plan_;
  Sum* partials_ = nullptr;
};

template <typename Element>
class CudaFilterPass : public CudaPass<Element> {
 public:
  using typename CudaPass<Element>::Sum;

  CudaFilterPass(const DeformProblem& problem, const DeformArgs& args,
                 void* workspace)
      : CudaPass<Element>(problem, args, workspace), plan_(this->shape_) {
    if (plan_.slices.count > 1) {
      partials_ = this->arena_.template Take<Sum>(plan_.slices.count *
                                                  this->conv_.FilterElements());
    }
  }

  template <typename Launcher>
  const char* Run(const Launcher& launch) const {
    const auto& conv = this->conv_;
    const auto& args = this->args_;
    CudaQueue<Launcher> queue(launch);
    queue.Put(this->Locate());
    CudaFilter<Element> kernel;
    kernel.tile = plan_.tiling.tile;
    kernel.sampler = this->Sampler();
    kernel.pixels = Small(this->shape_.Pixels());
    kernel.groups = Small(conv.groups);
    kernel.row_tiles = Small(plan_.tiling.row_tiles);
    kernel.column_tiles = Small(plan_.tiling.column_tiles);
    kernel.slices = Small(plan_.slices.count);
    kernel.slice_pixels = Small(plan_.slices.size);
    kernel.filters = Small(conv.out_channels);
    kernel.group_filters = Small(conv.GroupOutChannels());
    kernel.whole = this->WholeFilters({args.output, args.result});
    kernel.upstream = static_cast<const Element*>(args.output);
    kernel.gradient = static_cast<Element*>(args.result);
    kernel.partials = partials_;
    queue.Put(kernel);
    if (partials_ != nullptr) {
      const cuda::AddSlices<Element> add = {
          partials_, kernel.slices, conv.FilterElements(), kernel.gradient};
      queue.Put(add);
    }
    return queue.error();
  }

 private:
  const CudaFilterPlan<Sum> plan_;
  Sum* partials_ = nullptr;
};

// Gradients by the input, the offsets and the mask.
template <typename Element>
class CudaImagePass : public CudaPass<Element> {
 public:
  using typename CudaPass<Element>::Sum;

  CudaImagePass(const DeformProblem& problem, const DeformArgs& args,
                void* workspace)
      : CudaPass<Element>(problem, args, workspace),
        pieces_(this->shape_, sizeof(Sum)),
        of_image_(this->conv_.OutputPixels() * this->shape_.Points()),
        chunks_(CeilDivide(of_image_, kSortChunk)),
        cells_(CudaCells(WindowOf(this->shape_))),
        all_cells_(cells_ * this->shape_.offset_groups) {
    Arena& arena = this->arena_;
    const int64_t batch = this->conv_.batch, count = batch * of_image_;
    for (int i = 0; i < 2; ++i) {
      sorted_[i] = arena.Take<int32_t>(count);
      numbers_[i] = arena.Take<int32_t>(count);
    }
    counts_ = arena.Take<int32_t>(batch * chunks_ * kSortValues);
    starts_ = arena.Take<int32_t>(batch * (all_cells_ + 1));
    touches_ = arena.Take<CudaTouch<Sum>>(count);
    gradients_ = arena.Take<Sum>(3 * count);
    values_ =
        arena.Take<Sum>(pieces_.images * this->conv_.OutputPixels() *
                        this->conv_.KernelTaps() * pieces_.MostChannels());
  }

  template <typename Launcher>
  const char* Run(const Launcher& launch) const {
    const auto& conv = this->conv_;
    CudaQueue<Launcher> queue(launch);
    CudaLocate<Element> locate = this->Locate();
    locate.cells = sorted_[0];
    locate.gradients = gradients_;
    queue.Put(locate);
    if (conv.InputElements() > 0) Sort(&queue);
    for (int64_t image = 0; image < conv.batch; image += pieces_.images) {
      for (int64_t slice = 0; slice < pieces_.Count(); ++slice) {
        RunPiece(image, std::min(pieces_.images, conv.batch - image), slice,
                 &queue);
      }
    }
    const CudaNarrowPoints<Element> narrow = {
        locate.count, gradients_,
        static_cast<Element*>(this->args_.offsets_gradient),
        static_cast<Element*>(this->problem_.mask ? this->args_.mask_gradient
                                                  : nullptr)};
    queue.Put(narrow);
    return queue.error();
  }

 private:
  template <typename Launcher>
  void Sort(CudaQueue<Launcher>* queue) const {
    const int64_t batch = this->conv_.batch, count = batch * of_image_;
    CudaSortPass pass = {batch, of_image_, chunks_, 0, sorted_[0], nullptr};
    int to = 1;
    // Values up to all_cells_, which stands for no cell.
    for (; all_cells_ >> pass.shift > 0; pass.shift += kSortBits, to = 1 - to) {
      queue->Put(CudaSortCount{pass, counts_});
      queue->Put(CudaSortScan{batch, of_image_, chunks_, counts_});
      queue->Put(CudaSortPlace{pass, counts_, sorted_[to], numbers_[to]});
      pass.cells = sorted_[to];
      pass.numbers = numbers_[to];
    }
    const CudaTouchSamples<Sum> touch = {count,
                                         Small(this->conv_.KernelTaps()),
                                         Small(this->shape_.offset_groups),
                                         pass.numbers,
                                         this->samples_,
                                         touches_};
    queue->Put(touch);
    queue->Put(
        CudaCellStarts{batch, of_image_, all_cells_, pass.cells, starts_});
  }

  // Some images, a slice of the channels.
  template <typename Launcher>
  void RunPiece(int64_t image, int64_t images, int64_t slice,
                CudaQueue<Launcher>* queue) const {
    const auto& conv = this->conv_;
    const auto& args = this->args_;
    CudaValues<Sum> values;
    values.data = values_;
    values.first_pixel = Small(image * conv.OutputPixels());
    values.pixels = Small(images * conv.OutputPixels());
    values.first_channel =
        Small(pieces_.FirstGroup(slice) * conv.GroupInChannels() +
              pieces_.Skipped(slice));
    values.channels =
        Small(pieces_.Groups(slice) * pieces_.GroupChannels(slice));
    values.taps = Small(conv.KernelTaps());

    CudaValueGradient<Element> product;
    product.values = values;
    product.groups = Small(pieces_.Groups(slice));
    product.group_channels = Small(pieces_.GroupChannels(slice));
    product.first_group = Small(pieces_.FirstGroup(slice));
    product.all_group_channels = Small(conv.GroupInChannels());
    product.skipped_channels = Small(pieces_.Skipped(slice));
    const CudaTiling<Sum> tiling(values.pixels,
                                 int64_t{values.taps} * product.group_channels,
                                 product.groups, kCudaWantedBlocks);
    product.tile = tiling.tile;
    product.row_tiles = Small(tiling.row_tiles);
    product.column_tiles = Small(tiling.column_tiles);
    product.filters = Small(conv.out_channels);
    product.group_filters = Small(conv.GroupOutChannels());
    product.whole = this->WholeFilters({args.filter, args.output});
    product.whole_values = this->WholeChannels({});
    product.upstream = static_cast<const Element*>(args.output);
    product.filter = static_cast<const Element*>(args.filter);
    queue->Put(product);
    if (this->WholeChannels({args.input, args.result})) {
      Spread<4>(values, image, images, queue);
    } else {
      Spread<1>(values, image, images, queue);
    }
  }

  // From the gradients by values to those that are wanted.
  template <int kCount, typename Launcher>
  void Spread(const CudaValues<Sum>& values, int64_t image, int64_t images,
              CudaQueue<Launcher>* queue) const {
    const auto& conv = this->conv_;
    CudaPoints<Element, kCount> points;
    points.values = values;
    points.offset_groups = Small(this->shape_.offset_groups);
    points.offset_group_channels = Small(this->shape_.OffsetGroupChannels());
    points.first_group = values.first_channel / points.offset_group_channels;
    points.groups = (values.first_channel + values.channels - 1) /
                        points.offset_group_channels -
                    points.first_group + 1;
    points.channels = Small(conv.in_channels);
    points.width = Small(conv.input[2]);
    points.input = this->Input();
    points.samples = this->samples_;
    points.gradients = gradients_;
    queue->Put(points);
    if (conv.InputElements() == 0) return;
    CudaCollect<Element, kCount> collect;
    collect.values = values;
    collect.first_image = Small(image);
    collect.images = Small(images);
    collect.height = Small(conv.input[1]);
    collect.width = Small(conv.input[2]);
    collect.channels = Small(conv.in_channels);
    collect.offset_groups = Small(this->shape_.offset_groups);
    collect.offset_group_channels = Small(this->shape_.OffsetGroupChannels());
    collect.cells = Small(cells_);
    collect.touches = touches_;
    collect.starts = starts_;
    collect.gradient = static_cast<Element*>(this->args_.result);
    queue->Put(collect);
  }

  const CudaValueSlices pieces_;
  const int64_t of_image_, chunks_;  // samples, and what a sort cuts them into
  const int64_t cells_, all_cells_;  // of an offset group, and of all
  int32_t* sorted_[2];
  int32_t* numbers_[2];
  int32_t* counts_;
  int32_t* starts_;
  CudaTouch<Sum>* touches_;
  Sum* gradients_;
  Sum* values_;
};

// to[i] = 0.
template <typename Element>
struct CudaZero {
  using State = cuda::NoState;
  static constexpr int kMostThreads = kCudaThreads;

  int64_t count;
  Element* to;

  cuda::Launch Launch() const {
    return {(count + kMostThreads - 1) / kMostThreads, kMostThreads, 0};
  }

  KCONV_HOST_DEVICE int64_t Steps(int64_t) const { return 1; }

  KCONV_HOST_DEVICE void Step(int64_t, const cuda::Thread& thread, void*,
                              State*) const {
    const int64_t i = thread.block * thread.count + thread.index;
    if (i < count) to[i] = Element{};
  }
};

// Calls body(element, pass), with the type of the pass that a problem has.
template <typename Body>
void WithCudaPass(const DeformProblem& problem, const DeformArgs& args,
                  void* workspace, const Body& body) {
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    switch (problem.pass) {
      case Pass::kForward:
        return body(CudaForwardPass<Element>(problem, args, workspace));
      case Pass::kInputGradient:
        return body(CudaImagePass<Element>(problem, args, workspace));
      case Pass::kFilterGradient:
        return body(CudaFilterPass<Element>(problem, args, workspace));
    }
  });
}

inline int64_t CudaWorkspaceBytes(const DeformProblem& problem) {
  if (problem.shape.Pixels() == 0) return 0;
  int64_t bytes = 0;
  WithCudaPass(problem, DeformArgs(), nullptr,
               [&](const auto& pass) { bytes = pass.Workspace(); });
  return bytes;
}

// Without output pixels only gradients are left, and these are zero.
template <typename Launcher>
const char* CudaRunEmpty(const DeformProblem& problem, const DeformArgs& args,
                         const Launcher& launch) {
  const ConvShape& s = problem.shape.conv;
  const int64_t count = problem.pass == Pass::kForward ? 0
                        : problem.pass == Pass::kInputGradient
                            ? s.InputElements()
                            : s.FilterElements();
  const char* error = nullptr;
  WithElement(problem.dtype, [&](auto element) {
    const CudaZero<decltype(element)> zero = {
        count, static_cast<decltype(element)*>(args.result)};
    error = launch(zero, zero.Launch());
  });
  return error;
}

// One of the three passes, which a file of its own compiles for the GPU.
template <template <typename> class DeformPass, typename Launcher>
const char* CudaRunPass(const DeformProblem& problem, const DeformArgs& args,
                        void* workspace, const Launcher& launch) {
  if (problem.shape.Pixels() == 0) return CudaRunEmpty(problem, args, launch);
  const char* error = nullptr;
  WithElement(problem.dtype, [&](auto element) {
    error = DeformPass<decltype(element)>(problem, args, workspace).Run(launch);
  });
  return error;
}

template <typename Launcher>
const char* CudaRunBy(const DeformProblem& problem, const DeformArgs& args,
                      void* workspace, const Launcher& launch) {
  switch (problem.pass) {
    case Pass::kForward:
      return CudaRunPass<CudaForwardPass>(problem, args, workspace, launch);
    case Pass::kInputGradient:
      return CudaRunPass<CudaImagePass>(problem, args, workspace, launch);
    case Pass::kFilterGradient:
      break;
  }
  return CudaRunPass<CudaFilterPass>(problem, args, workspace, launch);
}

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_CUDA_RUN_H_
