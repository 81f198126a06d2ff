#include "algorithms/winograd/winograd.h"

#include <algorithm>
#include <cmath>

#include "algorithms/winograd/tiling.h"

namespace kconv {
namespace {

using winograd::Tiling;

winograd::Work WorkOf(int outputs, const Problem& problem, Isa isa) {
  return problem.pass == Pass::kFilterGradient
             ? winograd::FilterGradientWork(outputs, problem, isa)
             : winograd::ImagePassWork(outputs, problem, isa);
}

// Fewer channels make the transforms cost more than the products save.
constexpr int64_t kMinChannels = 4;

// What a filter is refused for, whatever the image.
template <int kOutputs>
const char* RefuseFilter(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.device != Device::kCpu) return "winograd has no GPU kernel.";
  if (problem.dtype == DType::kFloat64) {
    return "winograd takes float32, bfloat16 and float16 only.";
  }
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    if (s.stride[i] > s.kernel[i]) {
      return "winograd takes strides up to the kernel's size only.";
    }
    if (s.stride[i] > 1 && s.dilation[i] > 1) {
      return "winograd takes no axis with both strides and dilation.";
    }
  }
  bool transformed[kMaxSpatialDims];
  if (Tiling::TransformedAxes(s, transformed) == 0) {
    return "winograd takes kernels with an axis of 2, 3 or 5 taps a stride "
           "only.";
  }
  if (std::min(s.GroupInChannels(), s.GroupOutChannels()) < kMinChannels) {
    return "winograd does not pay with fewer than 4 channels or filters a "
           "group.";
  }
  if (kOutputs > 4 && Tiling(s, problem.pass, kOutputs).taps != 3) {
    return "winograd:f6 takes kernels of 3 taps only: with 5 it rounds too "
           "much, with 2 it wins too little.";
  }
  return nullptr;
}

template <int kOutputs>
const char* Refuse(const Problem& problem) {
  const char* refusal = RefuseFilter<kOutputs>(problem);
  if (refusal != nullptr) return refusal;
  const ConvShape& s = problem.shape;
  bool transformed[kMaxSpatialDims];
  Tiling::TransformedAxes(s, transformed);
  // All passes are refused together: a forced algorithm shall not fail in the
  // middle of training.
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    if (transformed[i] && (s.input[i] == 1 || s.output[i] == 1)) {
      return "winograd does not pay for images of one pixel along an axis.";
    }
  }
  Problem other = problem;
  for (Pass pass :
       {Pass::kForward, Pass::kInputGradient, Pass::kFilterGradient}) {
    other.pass = pass;
    // By the widest panels, so that every instruction set refuses the same.
    if (!WorkOf(kOutputs, other, Isa::kAvx512).fits) {
      return "winograd would take more than 128 MiB of workspace for so many "
             "channels.";
    }
  }
  return nullptr;
}

template <int kOutputs>
int64_t Workspace(const Problem& problem, Isa isa, int threads) {
  const winograd::Work work = WorkOf(kOutputs, problem, isa);
  return work.shared_bytes + threads * work.worker_bytes;
}

template <int kOutputs>
double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  // F(6x6) rounds more, and so must win clearly; not in the filter gradient,
  // which sums so many tiles that it does not show.
  const bool is_filter = problem.pass == Pass::kFilterGradient;
  // Of the peak: measured on Zen 3, and on Emerald Rapids.
  const double efficiency = cpu.Share(isa, 0.85, is_filter ? 0.55 : 0.62);
  // With AVX-512 its larger transforms show.
  double handicap = kOutputs < 6 ? 1.0
                    : is_filter  ? cpu.Share(isa, 1.0, 1.2)
                                 : cpu.Share(isa, 1.06, 1.12);
  // Of 2 taps the transforms cost more beside the products, along one axis most
  // (Zen 3).
  const Tiling tiling(problem.shape, problem.pass, kOutputs);
  if (tiling.taps == 2 && !is_filter) {
    handicap = tiling.dims() == 2 ? 1.2 : 1.5;
  }
  // Of strides of 3 and more little is left to save (Zen 3).
  for (int64_t stride : problem.shape.stride) {
    if (stride > 2) handicap = 2;
    if (stride == 2 && problem.shape.spatial_dims == 3) handicap = 1.3;
  }
  // Dilation leaves short classes of pixels, whose slices of tiles the filter
  // gradient adds up.
  if (is_filter && problem.shape.spatial_dims == 1 &&
      problem.shape.dilation[kMaxSpatialDims - 1] > 1) {
    handicap = 1.15;
  }
  // The channels of a group are padded to a line of the cache: fewer of them
  // cost more than their part of it.
  const ConvShape& s = problem.shape;
  const double channels = static_cast<double>(std::min<int64_t>(
      16, std::min(s.GroupInChannels(), s.GroupOutChannels())));
  const double padded = s.groups > 1 ? std::sqrt(16 / channels) : 1.0;
  // The way of both images through the memory, and to the types of the sums.
  const double elements =
      static_cast<double>(s.InputElements() + s.OutputElements());
  const double macs_per_element = problem.dtype == DType::kFloat16    ? 60
                                  : problem.dtype == DType::kBFloat16 ? 30
                                                                      : 12;
  return 1e-5 +
         (handicap * padded * WorkOf(kOutputs, problem, isa).macs / efficiency +
          cpu.Widening(isa) * macs_per_element * elements) /
             cpu.PeakMacs(isa, 4);
}

// With strides there is no prepared form.
template <int kOutputs>
int64_t PreparedBytes(const Problem& problem, Isa isa) {
  for (int64_t stride : problem.shape.stride) {
    if (stride > 1) return 0;
  }
  return RefuseFilter<kOutputs>(problem) == nullptr
             ? winograd::PreparedFilterBytes(problem, isa)
             : 0;
}

template <int kOutputs>
double Multiplications(const Problem& problem) {
  const Tiling tiling(problem.shape, problem.pass, kOutputs);
  const ConvShape& s = problem.shape;
  return tiling.FrequencyCount() * static_cast<double>(tiling.Count()) *
         static_cast<double>(s.GroupInChannels()) *
         static_cast<double>(s.out_channels);
}

template <typename Element>
void RunPass(int outputs, const Problem& problem, const ConvArgs& args,
             Context* ctx) {
  if (problem.pass == Pass::kFilterGradient) {
    winograd::RunFilterGradient<Element>(outputs, problem, args, ctx);
  } else {
    winograd::RunImagePass<Element>(outputs, problem, args, ctx);
  }
}

template <int kOutputs>
const char* Run(const Problem& problem, const ConvArgs& args, Context* ctx) {
  if (problem.dtype == DType::kFloat32) {
    RunPass<float>(kOutputs, problem, args, ctx);
  } else if (problem.dtype == DType::kBFloat16) {
    RunPass<BFloat16>(kOutputs, problem, args, ctx);
  } else {
    RunPass<Float16>(kOutputs, problem, args, ctx);
  }
  return nullptr;
}

template <int kOutputs>
constexpr Algorithm MakeAlgorithm(const char* name) {
  return {name,
          /*is_strict=*/false,
          Refuse<kOutputs>,
          Workspace<kOutputs>,
          Cost<kOutputs>,
          PreparedBytes<kOutputs>,
          winograd::PrepareFilter,
          Run<kOutputs>,
          Multiplications<kOutputs>};
}

}  // namespace

extern const Algorithm kAlgorithm_winograd_f2, kAlgorithm_winograd_f4,
    kAlgorithm_winograd_f6;
const Algorithm kAlgorithm_winograd_f2 = MakeAlgorithm<2>("winograd:f2");
const Algorithm kAlgorithm_winograd_f4 = MakeAlgorithm<4>("winograd:f4");
const Algorithm kAlgorithm_winograd_f6 = MakeAlgorithm<6>("winograd:f6");

}  // namespace kconv
