#include "deformable/deformable.h"

#include <algorithm>
#include <limits>

#include "deformable/passes.h"
#include "elements.h"

namespace kconv {
namespace deformable {

extern const Kernels kBaseline, kAvx2, kAvx512;

namespace {

const Kernels& KernelsFor(Isa isa) {
#ifdef KCONV_X86_KERNELS
  if (isa == Isa::kAvx512) return kAvx512;
  if (isa == Isa::kAvx2) return kAvx2;
#endif
  static_cast<void>(isa);
  return kBaseline;
}

template <typename Element>
void FillZeros(void* to, int64_t count) {
  std::fill_n(static_cast<Element*>(to), count, Element{});
}

// Without output pixels only gradients are left, and these are zero.
template <typename Element>
void RunEmpty(const DeformProblem& problem, const DeformArgs& args) {
  const ConvShape& s = problem.shape.conv;
  if (problem.pass == Pass::kInputGradient) {
    FillZeros<Element>(args.result, s.InputElements());
  } else if (problem.pass == Pass::kFilterGradient) {
    FillZeros<Element>(args.result, s.FilterElements());
  }
}

}  // namespace

template <>
const Kernel<float>& KernelFor<float>(Isa isa) {
  return KernelsFor(isa).float32;
}
template <>
const Kernel<double>& KernelFor<double>(Isa isa) {
  return KernelsFor(isa).float64;
}
template <>
const Kernel<BFloat16>& KernelFor<BFloat16>(Isa isa) {
  return KernelsFor(isa).bfloat16;
}
template <>
const Kernel<Float16>& KernelFor<Float16>(Isa isa) {
  return KernelsFor(isa).float16;
}

Window WindowOf(const DeformShape& shape) {
  const ConvShape& s = shape.conv;
  Window w;
  for (int i = 0; i < 2; ++i) {
    const int at = kMaxSpatialDims - 2 + i;
    w.input[i] = s.input[at];
    w.output[i] = s.output[at];
    w.kernel[i] = s.kernel[at];
    w.stride[i] = s.stride[at];
    w.dilation[i] = s.dilation[at];
    w.pad[i] = s.pad_before[at];
  }
  w.channels = s.in_channels;
  w.offset_groups = shape.offset_groups;
  w.offset_group_channels = shape.OffsetGroupChannels();
  return w;
}

}  // namespace deformable

std::string CompleteDeformShape(DeformShape* shape) {
  ConvShape& s = shape->conv;
  if (s.spatial_dims != 2) {
    return "A deformable convolution must have two spatial dimensions. "
           "Received: dimensions=" +
           std::to_string(s.spatial_dims);
  }
  if (s.layout != Layout::kChannelsLast) {
    return "A deformable convolution must have its channels last. Received: "
           "layout=channels_first";
  }
  const std::string error = CompleteShape(&s);
  if (!error.empty()) return error;
  if (shape->offset_groups < 1) {
    return "offset_groups must be positive. Received: offset_groups=" +
           std::to_string(shape->offset_groups);
  }
  if (s.in_channels % shape->offset_groups != 0) {
    return "Channels must be divisible by offset_groups. Received: channels=" +
           std::to_string(s.in_channels) +
           ", offset_groups=" + std::to_string(shape->offset_groups);
  }
  // As CompleteShape bounds the other tensors, with room for the gradients by
  // all offsets and masks; empty axes do not make the product of others small.
  constexpr int64_t kMostElements = std::numeric_limits<int64_t>::max() / 64;
  int64_t points = 2;
  for (int64_t factor : {s.batch, s.output[1], s.output[2],
                         shape->offset_groups, s.kernel[1], s.kernel[2]}) {
    if (factor == 0) continue;
    if (__builtin_mul_overflow(points, factor, &points) ||
        points > kMostElements) {
      return "There are too many offsets. Received: offset_groups=" +
             std::to_string(shape->offset_groups) + ", kernel_size=(" +
             std::to_string(s.kernel[1]) + ", " + std::to_string(s.kernel[2]) +
             ")";
    }
  }
  return "";
}

double DeformProblem::Macs() const {
  const ConvShape& s = shape.conv;
  return static_cast<double>(s.OutputElements()) *
         static_cast<double>(s.KernelTaps() * s.GroupInChannels());
}

int64_t DeformWorkspace(const DeformProblem& problem, Isa isa, int threads) {
  int64_t bytes = 0;
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    switch (problem.pass) {
      case Pass::kForward:
        bytes = deformable::ForwardWorkspace<Element>(problem, isa, threads);
        return;
      case Pass::kInputGradient:
        bytes =
            deformable::ImageGradientWorkspace<Element>(problem, isa, threads);
        return;
      case Pass::kFilterGradient:
        bytes =
            deformable::FilterGradientWorkspace<Element>(problem, isa, threads);
        return;
    }
  });
  return bytes;
}

void RunDeform(const DeformProblem& problem, const DeformArgs& args,
               Context* ctx) {
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    ctx->isa_ran = deformable::KernelFor<Element>(ctx->isa).isa;
    if (problem.shape.Pixels() == 0) {
      return deformable::RunEmpty<Element>(problem, args);
    }
    switch (problem.pass) {
      case Pass::kForward:
        return deformable::RunForward<Element>(problem, args, ctx);
      case Pass::kInputGradient:
        return deformable::RunImageGradient<Element>(problem, args, ctx);
      case Pass::kFilterGradient:
        return deformable::RunFilterGradient<Element>(problem, args, ctx);
    }
  });
}

}  // namespace kconv
