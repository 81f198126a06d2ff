#include "algorithms/fft/fft.h"

#include <algorithm>

#include "conv.h"
#include "elements.h"

namespace kconv {
namespace fft {
namespace {

// Kernels of fewer taps along both axes are faster by the other algorithms,
// among them one that is depthwise convolution's own.
constexpr int64_t kMinTaps = 7, kMinTapsOfOneChannel = 9;

const char* Refuse(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.device != Device::kCpu) return "fft has no GPU kernel.";
  const int64_t taps = *std::max_element(s.kernel, s.kernel + kMaxSpatialDims);
  if (taps < kMinTaps) {
    return "fft does not pay for kernels of fewer than 7 taps along each axis.";
  }
  if (s.GroupInChannels() == 1 && taps < kMinTapsOfOneChannel) {
    return "fft does not pay for kernels of fewer than 9 taps along each axis "
           "where a group has one channel.";
  }
  if (s.spatial_dims > 2) return "fft takes one and two dimensions only.";
  for (int64_t stride : s.stride) {
    if (stride > 1) {
      return "fft takes no strides: it would compute what they skip.";
    }
  }
  if (taps > kMaxSize) {
    return "fft takes kernels of at most 128 taps along an axis.";
  }
  return nullptr;
}

Bytes BytesOf(const Problem& problem, const Plan& plan, Isa isa) {
  Bytes bytes = {};
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    bytes = plan.across_groups ? AcrossGroupsBytes<Element>(problem, plan, isa)
                               : WithinGroupsBytes<Element>(problem, plan, isa);
  });
  return bytes;
}

int64_t Workspace(const Problem& problem, Isa isa, int threads) {
  const Plan plan(problem, isa);
  const Bytes bytes = BytesOf(problem, plan, isa);
  return bytes.shared + threads * bytes.worker;
}

double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  const Plan plan(problem, isa);
  const ConvShape& s = problem.shape;
  // Of the peak: measured on Zen 3, and on Emerald Rapids.
  const double efficiency = cpu.Share(isa, 0.6, 0.3);
  // The way of both images through the memory, and to the types of the sums.
  const double macs_per_element = problem.dtype == DType::kFloat16    ? 60
                                  : problem.dtype == DType::kBFloat16 ? 30
                                                                      : 12;
  const double elements =
      static_cast<double>(s.InputElements() + s.OutputElements());
  return 1e-5 + (plan.macs / efficiency +
                 cpu.Widening(isa) * macs_per_element * elements) /
                    cpu.PeakMacs(isa, problem.dtype == DType::kFloat64 ? 8 : 4);
}

int64_t PreparedBytes(const Problem&, Isa) { return 0; }

void Prepare(const Problem&, Isa, const void*, void*) {}

const char* Run(const Problem& problem, const ConvArgs& args, Context* ctx) {
  const Plan plan(problem, ctx->isa);
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    if (plan.across_groups) {
      RunAcrossGroups<Element>(problem, plan, args, ctx);
    } else {
      RunWithinGroups<Element>(problem, plan, args, ctx);
    }
  });
  return nullptr;
}

}  // namespace
}  // namespace fft

extern const Algorithm kAlgorithm_fft;
const Algorithm kAlgorithm_fft = {"fft",
                                  /*is_strict=*/false,
                                  fft::Refuse,
                                  fft::Workspace,
                                  fft::Cost,
                                  fft::PreparedBytes,
                                  fft::Prepare,
                                  fft::Run};

}  // namespace kconv
