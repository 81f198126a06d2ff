#include "algorithms/depthwise/depthwise.h"

#include "algorithms/depthwise/passes.h"
#include "conv.h"

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

double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  const int64_t bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  return 5e-6 + problem.Macs() / (0.5 * cpu.PeakMacs(isa, bytes));
}

int64_t PreparedBytes(const Problem&, Isa) { return 0; }

void Prepare(const Problem&, Isa, const void*, void*) {}

template <typename Element>
void RunPass(const Problem& problem, const ConvArgs& args, Context* ctx) {
  if (problem.pass == Pass::kFilterGradient) {
    RunFilterGradient<Element>(problem, args, ctx);
  } else {
    RunImagePass<Element>(problem, args, ctx);
  }
}

const char* Run(const Problem& problem, const ConvArgs& args, Context* ctx) {
  switch (problem.dtype) {
    case DType::kFloat32:
      RunPass<float>(problem, args, ctx);
      break;
    case DType::kFloat64:
      RunPass<double>(problem, args, ctx);
      break;
    case DType::kBFloat16:
      RunPass<BFloat16>(problem, args, ctx);
      break;
    case DType::kFloat16:
      RunPass<Float16>(problem, args, ctx);
      break;
  }
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
