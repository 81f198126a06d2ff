#include "algorithms/direct/direct.h"

#include <algorithm>

#include "algorithms/direct/window.h"
#include "conv.h"

namespace kconv {
namespace direct {

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

int64_t Items(const Problem& problem) {
  const ConvShape& s = problem.shape;
  switch (problem.pass) {
    case Pass::kForward:
      return s.batch * s.OutputPixels();
    case Pass::kInputGradient:
      return s.batch * s.InputPixels();
    case Pass::kFilterGradient:
      break;
  }
  return s.KernelTaps() * s.GroupInChannels();
}

// The fraction of the peak that the forward pass and the filter gradient reach,
// much below: sums wait for loads, and rows narrower than a vector waste most
// of it. Measured on Zen 3.
double Efficiency(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const double filters = static_cast<double>(s.GroupOutChannels());
  const double filled = std::min(1.0, filters / 32);
  if (problem.pass == Pass::kFilterGradient) {
    return s.layout == Layout::kChannelsLast ? 0.13 * filled : 0.015;
  }
  // Groups, and channels that are too few to repeat what is done for a window.
  const double channels = static_cast<double>(s.GroupInChannels());
  return 0.25 * filled * std::min(1.0, 0.4 + 0.04 * channels) *
         (s.groups > 1 ? 0.3 : 1.0);
}

// What the parts of an input gradient take, in multiply-adds at AVX2's peak:
// the sum that each channel of a pixel has, a tap that is looked at, and a
// multiply-add in full rows of filters, which channels first have none of, and
// in the rest. Fitted to random problems of `kconv bench auto` on Emerald
// Rapids, which they tell within a quarter.
struct GradientParts {
  double sum, tap, in_row, rest;
};
constexpr GradientParts kLastParts = {800, 135, 2.5, 40};
constexpr GradientParts kFirstParts = {1900, 90, 0, 35};

double InputGradientSeconds(const Problem& problem, const Cpu& cpu, Isa isa) {
  const ConvShape& s = problem.shape;
  double looked_at = 0, met = 1;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    const double taps = static_cast<double>(s.kernel[i]);
    looked_at += met * taps;
    met *= taps / static_cast<double>(s.stride[i]);
  }
  const bool last = s.layout == Layout::kChannelsLast;
  const double filters = static_cast<double>(s.GroupOutChannels());
  const double rest =
      last ? static_cast<double>(s.GroupOutChannels() % kBlock) : filters;
  const GradientParts& parts = last ? kLastParts : kFirstParts;
  // Only rows are of vectors.
  const double scalar =
      parts.sum + parts.tap * looked_at + parts.rest * met * rest;
  const double vector =
      parts.in_row * met * (filters - rest) * cpu.Widening(isa);
  const int64_t bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  return static_cast<double>(s.InputElements()) *
         (scalar / cpu.PeakMacs(Isa::kAvx2, 4) +
          vector / cpu.PeakMacs(isa, bytes));
}

// On one core, without the way through the memory.
double Seconds(const Problem& problem, const Cpu& cpu, Isa isa) {
  if (problem.pass == Pass::kInputGradient) {
    return InputGradientSeconds(problem, cpu, isa);
  }
  return problem.Macs() / Efficiency(problem) /
         cpu.PeakMacs(isa, problem.dtype == DType::kFloat64 ? 8 : 4);
}

template <typename Element>
void RunWith(const Kernel<Element>& kernel, const Problem& problem,
             const ConvArgs& args, Context* ctx) {
  const Window window = WindowOf(problem.shape);
  auto* input = static_cast<Element*>(args.input);
  auto* filter = static_cast<Element*>(args.filter);
  auto* output = static_cast<Element*>(args.output);
  const auto* bias = static_cast<const Element*>(args.bias);
  ctx->isa_ran = kernel.isa;
  const int64_t items = Items(problem);
  if (items == 0) return;
  const double seconds =
      Seconds(problem, ThisCpu(), ctx->isa) / static_cast<double>(items);
  ctx->ParallelFor(items, seconds, [&](int64_t begin, int64_t end, int) {
    switch (problem.pass) {
      case Pass::kForward:
        kernel.forward(window, input, filter, bias, problem.epilogue.activation,
                       output, begin, end);
        break;
      case Pass::kInputGradient:
        kernel.input_gradient(window, input, filter, bias,
                              problem.epilogue.activation, output, begin, end);
        break;
      case Pass::kFilterGradient:
        kernel.filter_gradient(window, input, filter, output, begin, end);
        break;
    }
  });
}

const char* Refuse(const Problem& problem) {
  if (problem.device != Device::kCpu) return "direct has no GPU kernel.";
  return nullptr;
}

int64_t Workspace(const Problem&, Isa, int) { return 0; }

double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  const ConvShape& s = problem.shape;
  // The way of both images through the memory.
  constexpr double kMacsPerElement = 20;
  const double elements =
      static_cast<double>(s.InputElements() + s.OutputElements());
  // Half types are widened one by one, again and again.
  const double widened = SizeOf(problem.dtype) == 2 ? 4 : 1;
  return 2e-6 + widened * Seconds(problem, cpu, isa) +
         cpu.Widening(isa) * kMacsPerElement * elements /
             cpu.PeakMacs(isa, problem.dtype == DType::kFloat64 ? 8 : 4);
}

int64_t PreparedBytes(const Problem&, Isa) { return 0; }

void Prepare(const Problem&, Isa, const void*, void*) {}

const char* Run(const Problem& problem, const ConvArgs& args, Context* ctx) {
  const Kernels& kernels = KernelsFor(ctx->isa);
  switch (problem.dtype) {
    case DType::kFloat32:
      RunWith(kernels.float32, problem, args, ctx);
      break;
    case DType::kFloat64:
      RunWith(kernels.float64, problem, args, ctx);
      break;
    case DType::kBFloat16:
      RunWith(kernels.bfloat16, problem, args, ctx);
      break;
    case DType::kFloat16:
      RunWith(kernels.float16, problem, args, ctx);
      break;
  }
  return nullptr;
}

}  // namespace
}  // namespace direct

extern const Algorithm kAlgorithm_direct;
const Algorithm kAlgorithm_direct = {
    "direct",
    /*is_strict=*/true, direct::Refuse,        direct::Workspace,
    direct::Cost,       direct::PreparedBytes, direct::Prepare,
    direct::Run};

}  // namespace kconv
