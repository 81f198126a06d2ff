#include "algorithms/depthwise/depthwise.h"

#include <algorithm>

#include "algorithms/depthwise/passes.h"
#include "conv.h"
#include "elements.h"
#include "split.h"

namespace kconv {
namespace depthwise {

extern const Kernels kBaseline, kAvx2, kAvx512;

const Kernels& KernelsFor(Isa isa) {
#ifdef KCONV_X86_KERNELS
  if (isa == Isa::kAvx512) return kAvx512;
  if (isa == Isa::kAvx2) return kAvx2;
#endif
  static_cast<void>(isa);
  return kBaseline;
}

namespace {

const char* Refuse(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.device != Device::kCpu) return "depthwise has no GPU kernel.";
  if (s.GroupInChannels() != 1) {
    return "depthwise takes one input channel a group only.";
  }
  if (s.GroupOutChannels() > kMaxRepeat) {
    return "depthwise takes at most 256 filters a channel.";
  }
  if (problem.pass == Pass::kInputGradient && s.GroupOutChannels() > 1 &&
      !problem.epilogue.Empty()) {
    // They are finished before the sums of a channel are added up.
    return "depthwise adds no bias to an input gradient of several filters a "
           "channel.";
  }
  if (s.KernelTaps() > kMaxTaps) {
    return "depthwise takes kernels of at most 65536 taps.";
  }
  return nullptr;
}

int64_t Workspace(const Problem& problem, Isa isa, int threads) {
  return problem.pass == Pass::kFilterGradient
             ? FilterGradientWorkspace(problem, isa, threads)
             : ImagePassWorkspace(problem, isa, threads);
}

// Pairs of an output and a tap that meets an input, along an axis.
double Pairs(const ConvShape& s, int dim) {
  constexpr int64_t kMostCounted = 128;  // a choice is made for every call
  const double all =
      static_cast<double>(s.output[dim]) * static_cast<double>(s.kernel[dim]);
  if (s.kernel[dim] > kMostCounted) return all;
  int64_t pairs = 0;
  for (int64_t t = 0; t < s.kernel[dim]; ++t) {
    const int64_t before = s.pad_before[dim] - t * s.dilation[dim];
    const int64_t first =
        before > 0 ? CeilDivide(before, s.stride[dim]) : int64_t{0};
    const int64_t end = s.input[dim] + before <= 0
                            ? 0
                            : CeilDivide(s.input[dim] + before, s.stride[dim]);
    pairs += std::max<int64_t>(0, std::min(end, s.output[dim]) - first);
  }
  return static_cast<double>(pairs);
}

// The multiply-adds that are done, the pixels of images of one channel, and the
// way of both images through the memory. Measured on Zen 3, and on Emerald
// Rapids.
double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  const ConvShape& s = problem.shape;
  const bool is_double = problem.dtype == DType::kFloat64;
  const int64_t bytes = is_double ? 8 : 4;
  const Kernels& kernels = KernelsFor(isa);
  const int64_t lanes =
      is_double ? kernels.float64.lanes : kernels.float32.lanes;
  const double macs = static_cast<double>(s.batch) *
                      static_cast<double>(RoundUp(s.out_channels, lanes)) *
                      Pairs(s, 0) * Pairs(s, 1) * Pairs(s, 2);
  constexpr double kShares[3] = {0.6, 0.6, 0.45}, kWide[3] = {0.45, 0.9, 0.25};
  const int pass = static_cast<int>(problem.pass);
  double efficiency = cpu.Share(isa, kShares[pass], kWide[pass]);
  // Columns that are read serve one output each.
  if (s.stride[2] > 2) efficiency *= 0.5;
  // Several filters a channel are gathered, and where there is but one channel
  // they fill few vectors. The input gradient sums over them.
  constexpr double kSeveral[3] = {0.20, 0.17, 0.20};
  constexpr double kOneChannel[3] = {0.24, 0.10, 0.26};
  // What a pixel that is written takes there beside its taps, in multiply-adds
  // at AVX2's peak, for each filter.
  constexpr double kMacsPerPixel = 40;
  double of_pixels = 0;
  if (s.GroupOutChannels() > 1) {
    efficiency *= (s.groups > 1 ? kSeveral : kOneChannel)[pass];
    if (s.groups == 1 && problem.pass != Pass::kFilterGradient) {
      const int64_t written =
          problem.pass == Pass::kForward ? s.OutputPixels() : s.InputPixels();
      of_pixels = kMacsPerPixel * cpu.Widening(isa) *
                  static_cast<double>(s.batch * written) *
                  static_cast<double>(s.out_channels);
    }
  }
  const double elements =
      static_cast<double>(s.InputElements() + s.OutputElements());
  const double memory =
      elements * static_cast<double>(bytes) / cpu.Share(isa, 1e10, 7.5e9);
  const bool in_panels = s.layout == Layout::kChannelsFirst ||
                         (!is_double && SizeOf(problem.dtype) == 2);
  const double panels = in_panels ? elements * 2e-10 : 0.0;
  return 5e-6 + (macs / efficiency + of_pixels) / cpu.PeakMacs(isa, bytes) +
         memory + panels;
}

int64_t PreparedBytes(const Problem&, Isa) { return 0; }

void Prepare(const Problem&, Isa, const void*, void*) {}

const char* Run(const Problem& problem, const ConvArgs& args, Context* ctx) {
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    if (problem.pass == Pass::kFilterGradient) {
      RunFilterGradient<Element>(problem, args, ctx);
    } else {
      RunImagePass<Element>(problem, args, ctx);
    }
  });
  return nullptr;
}

}  // namespace
}  // namespace depthwise

extern const Algorithm kAlgorithm_depthwise;
const Algorithm kAlgorithm_depthwise = {
    "depthwise",
    /*is_strict=*/true, depthwise::Refuse,        depthwise::Workspace,
    depthwise::Cost,    depthwise::PreparedBytes, depthwise::Prepare,
    depthwise::Run};

}  // namespace kconv
