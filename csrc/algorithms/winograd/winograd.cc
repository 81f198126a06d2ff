#include "algorithms/winograd/winograd.h"

#include "algorithms/winograd/tiling.h"

namespace kconv {
namespace {

using winograd::Tiling;

template <int kOutputs>
const char* Refuse(const Problem& problem) {
  const ConvShape& s = problem.shape;
  bool transformed[kMaxSpatialDims];
  if (problem.device != Device::kCpu) return "winograd runs on the CPU only.";
  if (problem.epilogue) return "winograd fuses nothing into the convolution.";
  if (problem.dtype == DType::kFloat64) {
    return "winograd takes float32, bfloat16 and float16 only.";
  }
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    if (s.stride[i] != 1) return "winograd takes strides of 1 only.";
  }
  if (Tiling::TransformedAxes(s, transformed) == 0) {
    return "winograd takes kernels with an axis of 3 or 5 taps only.";
  }
  if (kOutputs > 4 && Tiling(s, problem.pass, kOutputs).taps > 3) {
    return "winograd:f6 takes kernels of 3 taps only: with 5 it rounds too "
           "much.";
  }
  return nullptr;
}

template <int kOutputs>
int64_t Workspace(const Problem& problem, Isa isa, int threads) {
  if (problem.pass == Pass::kFilterGradient) {
    return winograd::FilterGradientBytes(kOutputs, problem, isa, threads);
  }
  return winograd::ImagePassBytes(kOutputs, problem, isa, threads);
}

template <int kOutputs>
double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  return 5e-6 + problem.Macs() / cpu.PeakMacs(isa, 4) / kOutputs;
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
          Run<kOutputs>};
}

}  // namespace

extern const Algorithm kAlgorithm_winograd_f2, kAlgorithm_winograd_f4,
    kAlgorithm_winograd_f6;
const Algorithm kAlgorithm_winograd_f2 = MakeAlgorithm<2>("winograd:f2");
const Algorithm kAlgorithm_winograd_f4 = MakeAlgorithm<4>("winograd:f4");
const Algorithm kAlgorithm_winograd_f6 = MakeAlgorithm<6>("winograd:f6");

}  // namespace kconv
