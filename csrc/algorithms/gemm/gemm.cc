#include "algorithms/gemm/gemm.h"

#include <algorithm>

#include "algorithms/gemm/blocking.h"
#include "elements.h"

namespace kconv {
namespace {

// The table is memory that Workspace does not count: about 64 bytes a tap.
constexpr int64_t kMaxTaps = 1 << 16;

const char* Refuse(const Problem& problem) {
  if (problem.device != Device::kCpu) return "gemm has no GPU kernel.";
  if (problem.shape.KernelTaps() > kMaxTaps) {
    return "gemm keeps a table of the kernel's taps, and takes at most 65536.";
  }
  return nullptr;
}

int64_t Workspace(const Problem& problem, Isa isa, int threads) {
  const int64_t worker = problem.dtype == DType::kFloat64
                             ? gemm::Scratch<double>::kBytes
                             : gemm::Scratch<float>::kBytes;
  const int64_t shared = problem.pass == Pass::kFilterGradient
                             ? gemm::PartialBytes(problem)
                             : gemm::PackedFilterBytes(problem, isa);
  return shared + threads * worker;
}

// Multiply-accumulates that take as long as the patch of one tap, or of a row
// of taps that lie side by side, of however few channels, and as one packed
// element. Measured on Zen 3.
constexpr double kMacsPerPatch = 480;
// The same of an input gradient with strides: each class of pixels is a product
// of its own, written pixel by pixel.
constexpr double kMacsPerStridedPatch = 1700;
constexpr double kMacsPerClass = 1.4e5;
constexpr double kMacsPerPackedElement = 75;
constexpr double kMacsPerScattered = 60;
// The same of an element of a patch that is copied, and of one that is read
// where it lies.
constexpr double kMacsPerCopiedElement = 25;
constexpr double kMacsPerElement = 5;
// ... of the filter gradient, which transposes it.
constexpr double kMacsPerTransposed = 35;
// ... and more of one that is widened from a half type.
constexpr double kMacsPerFloat16 = 60;
constexpr double kMacsPerBFloat16 = 12;
// ... and of an element of both images, which come through the memory.
constexpr double kMacsPerImageElement = 20;
// A filter that does not fit the second-level cache is read anew for each block
// of rows; an element of it takes as long as so many.
constexpr double kMacsPerFilterElement = 15;
constexpr int64_t kCachedFilterElements = 1 << 18;

// The taps that the patch of an output consists of: in strips, each of taps
// that lie side by side.
struct Taps {
  int64_t strips = 1, of_strip = 1;
};

Taps TapsOf(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const bool forward = problem.pass != Pass::kInputGradient;
  Taps taps;
  for (int i = 0; i < kMaxSpatialDims; ++i) {
    const int64_t met =
        forward ? s.kernel[i] : CeilDivide(s.kernel[i], s.stride[i]);
    const bool joined =
        i == kMaxSpatialDims - 1 && s.groups == 1 && s.dilation[i] == 1;
    (joined ? taps.of_strip : taps.strips) *= met;
  }
  return taps;
}

// Whether patches are read where they lie; image_pass.cc has the exact rule.
bool ReadsInPlace(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const int64_t channels = problem.pass == Pass::kInputGradient
                               ? s.GroupOutChannels()
                               : s.GroupInChannels();
  const Taps taps = TapsOf(problem);
  return problem.dtype == DType::kFloat32 &&
         s.layout == Layout::kChannelsLast &&
         (taps.strips == 1 ||
          taps.of_strip * channels >= gemm::kDepth<float> / 2);
}

// Multiply-accumulates at the micro-kernel's speed, lanes without a column
// counted as work, and the copies of both operands.
double Cost(const Problem& problem, const Cpu& cpu, Isa isa) {
  const ConvShape& s = problem.shape;
  const int64_t bytes = problem.dtype == DType::kFloat64 ? 8 : 4;
  const int64_t lanes = (isa == Isa::kAvx512 ? 64
                         : isa == Isa::kAvx2 ? 32
                                             : 16) /
                        bytes;
  const int64_t columns = s.layout == Layout::kChannelsFirst &&
                                  problem.pass != Pass::kFilterGradient
                              ? s.OutputPixels()
                          : problem.pass == Pass::kInputGradient
                              ? s.GroupInChannels()
                              : s.GroupOutChannels();
  if (columns == 0 || s.OutputElements() == 0) return 1e-6;
  const double padded = static_cast<double>(RoundUp(columns, lanes)) /
                        static_cast<double>(columns);
  const double macs = problem.Macs() * padded;
  // Each group copies its own patches; a call of the kernel costs about as much
  // as ten thousand multiply-adds.
  const double patches =
      static_cast<double>(s.batch * s.OutputPixels() * s.groups) *
      static_cast<double>(s.KernelTaps());
  const double per_element = problem.pass == Pass::kFilterGradient
                                 ? kMacsPerTransposed
                             : ReadsInPlace(problem) ? kMacsPerElement
                                                     : kMacsPerCopiedElement;
  double copies = per_element * problem.Macs() / static_cast<double>(columns);
  if (s.layout == Layout::kChannelsFirst &&
      problem.pass != Pass::kFilterGradient) {
    // Pixels are columns: their patches are packed, element by element.
    copies = kMacsPerPackedElement * patches *
             static_cast<double>(problem.pass == Pass::kInputGradient
                                     ? s.GroupOutChannels()
                                     : s.GroupInChannels());
    // The pixels of a class of a stride lie apart, and are written one by one.
    if (problem.pass == Pass::kInputGradient &&
        s.stride[kMaxSpatialDims - 1] > 1) {
      copies += kMacsPerScattered * static_cast<double>(s.InputElements());
    }
  } else if (s.groups > 1) {
    // Few channels do not make up for what a patch takes by itself.
    copies = std::max(copies, kMacsPerPatch * patches);
  } else if (!ReadsInPlace(problem) || (problem.pass == Pass::kInputGradient &&
                                        s.stride[kMaxSpatialDims - 1] > 2)) {
    const int64_t written = problem.pass == Pass::kInputGradient
                                ? s.InputPixels()
                                : s.OutputPixels();
    const bool is_strided = problem.pass == Pass::kInputGradient &&
                            s.stride[kMaxSpatialDims - 1] > 2;
    copies =
        std::max(copies, (is_strided ? kMacsPerStridedPatch : kMacsPerPatch) *
                             static_cast<double>(s.batch * written) *
                             static_cast<double>(TapsOf(problem).strips));
    if (is_strided) {
      double classes = 1;
      for (int i = 0; i < kMaxSpatialDims; ++i) {
        classes *= static_cast<double>(std::min(s.stride[i], s.kernel[i]));
      }
      copies += kMacsPerClass * classes;
    }
  }
  if (problem.pass != Pass::kFilterGradient &&
      s.FilterElements() > kCachedFilterElements) {
    copies += kMacsPerFilterElement * static_cast<double>(s.FilterElements()) *
              static_cast<double>(
                  CeilDivide(s.batch * s.OutputPixels(), gemm::kPackedRows));
  }
  if (SizeOf(problem.dtype) == 2) {
    copies += (problem.dtype == DType::kFloat16 ? kMacsPerFloat16
                                                : kMacsPerBFloat16) *
              problem.Macs() / static_cast<double>(columns);
  }
  copies += kMacsPerImageElement *
            static_cast<double>(s.InputElements() + s.OutputElements());
  // The copies are reckoned in multiply-adds of float32, and float64 has half
  // as many a second.
  if (bytes == 8) copies *= 0.5;
  const double groups = static_cast<double>(s.groups);
  const double peak = cpu.PeakMacs(isa, bytes);
  // Of the peak: measured on Zen 3, and on Emerald Rapids.
  const double efficiency = problem.pass == Pass::kFilterGradient
                                ? cpu.Share(isa, 0.74, 0.75)
                                : cpu.Share(isa, 0.85, 0.68);
  return 5e-6 +
         (macs / efficiency + cpu.Widening(isa) * (copies + 1e4 * groups)) /
             peak;
}

int64_t PreparedBytes(const Problem&, Isa) { return 0; }

void Prepare(const Problem&, Isa, const void*, void*) {}

const char* Run(const Problem& problem, const ConvArgs& args, Context* ctx) {
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    if (problem.pass == Pass::kFilterGradient) {
      gemm::RunFilterGradient<Element>(problem, args, ctx);
    } else {
      gemm::RunImagePass<Element>(problem, args, ctx);
    }
  });
  return nullptr;
}

}  // namespace

extern const Algorithm kAlgorithm_gemm;
const Algorithm kAlgorithm_gemm = {
    "gemm", /*is_strict=*/true, Refuse,  Workspace,
    Cost,   PreparedBytes,      Prepare, Run};

}  // namespace kconv
