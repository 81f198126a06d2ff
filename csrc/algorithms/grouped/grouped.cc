#include "algorithms/grouped/grouped.h"

#include <algorithm>

#include "conv.h"
#include "elements.h"

namespace kconv {
namespace grouped {

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

namespace {

constexpr int64_t kMostChannels = 64;
constexpr int64_t kMostBytes = int64_t{128} << 20;
constexpr int64_t kMostWorkerBytes = int64_t{8} << 20;

Workspace WorkspaceOf(const Problem& problem, Isa isa) {
  return problem.pass == Pass::kFilterGradient
             ? FilterGradientWorkspace(problem, isa)
             : ImagePassWorkspace(problem, isa);
}

const char* Refuse(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.device != Device::kCpu) return "grouped has no GPU kernel.";
  if (s.groups == 1) return "grouped takes more than one group only.";
  if (s.GroupInChannels() == 1) {
    return "grouped takes groups of more than one input channel only.";
  }
  if (std::max(s.GroupInChannels(), s.GroupOutChannels()) > kMostChannels) {
    return "grouped does not pay with more than 64 channels or filters a "
           "group.";
  }
  // All passes are refused together: a forced algorithm shall not fail in the
  // middle of training. By the bounds of any instruction set.
  Problem other = problem;
  for (Pass pass :
       {Pass::kForward, Pass::kInputGradient, Pass::kFilterGradient}) {
    other.pass = pass;
    for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
      const Workspace w = WorkspaceOf(other, isa);
      if (w.shared > kMostBytes || w.worker > kMostWorkerBytes) {
        return "grouped would take more than 128 MiB of workspace, or 8 MiB a "
               "thread, for such a kernel.";
      }
    }
  }
  return nullptr;
}

int64_t WorkspaceBytes(const Problem& problem, Isa isa, int threads) {
  const Workspace w = WorkspaceOf(problem, isa);
  return w.shared + threads * w.worker;
}

double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  const int64_t bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  return 5e-6 + WorkOf(problem, cpu, isa) / cpu.PeakMacs(isa, bytes);
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
}  // namespace grouped

extern const Algorithm kAlgorithm_grouped;
const Algorithm kAlgorithm_grouped = {
    "grouped",
    /*is_strict=*/true, grouped::Refuse,        grouped::WorkspaceBytes,
    grouped::Cost,      grouped::PreparedBytes, grouped::Prepare,
    grouped::Run};

}  // namespace kconv
