#include "stock.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>
#include <string>

namespace kconv {
namespace {

// What a pass takes beyond what kconv's own take as well: seconds a call; the
// fraction of the peak of one core, frequency x vector lanes x 2 multiply-adds,
// that its products reach; and the multiply-adds at the peak that take as long
// as an element of the image and of the output, as an element of a patch
// that is gathered for its products, and as an element of the filter.
struct Rate {
  double overhead, efficiency, element, gathered, weight;
};

// oneDNN. Its gradients of three dimensions and those with strides take so many
// times as long, and wide kernels the part; `pixel` is what one costs where it
// writes images in blocks of more channels than there are. Depthwise: for
// kernels of at most 3 columns, and for others.
struct OneDnn {
  Rate rates[3];
  double gradients3d, strided[3], wide, pixel;
  double depthwise[2][3];       // efficiency
  double depthwise_strided;     // times as long, of images
  double depthwise_element[3];  // of the images
};

// All fitted to random problems of `kconv bench auto`: on Zen 3 with AVX2, and
// on Emerald Rapids with AVX-512.
constexpr OneDnn kOneDnnAvx2 = {{{4e-4, 0.76, 20, 0, 150},
                                 {2e-4, 0.90, 20, 5, 700},
                                 {8e-4, 0.50, 10, 10, 0}},
                                2,
                                {1, 1.6, 1.3},
                                0.85,
                                3000,
                                {{0.22, 0.20, 0.12}, {0.30, 0.30, 0.05}},
                                2,
                                {0, 0, 0}};
constexpr OneDnn kOneDnnAvx512 = {{{3.0e-4, 0.80, 32, 0, 110},
                                   {1.5e-4, 0.85, 39, 5, 400},
                                   {6.0e-4, 0.63, 42, 7, 0}},
                                  1.1,
                                  {1.1, 1.2, 1.2},
                                  0.95,
                                  900,
                                  {{0.22, 0.15, 0.044}, {0.60, 0.32, 0.07}},
                                  1.5,
                                  {24, 12, 34}};

// Eigen, on Zen 3 with AVX2.
constexpr Rate kEigen[3] = {{1.5e-4, 0.68, 8, 26, 350},
                            {2e-5, 0.45, 65, 8, 550},
                            {5e-4, 0.64, 15, 140, 25}};

// The efficiency with AVX-512 as a part of the peak of AVX2: figures on Zen 4.
constexpr double kOneDnnHalved[3] = {1.10, 1.06, 0.76};
constexpr double kEigenAvx512[3] = {0.54, 0.40, 0.26};

// The efficiency of other types, that of the half types as a part of float32's
// peak: 28x28x128, kernel 3x3, batch 8, on Zen 3 and Zen 4, with AVX-512 as a
// part of the peak of AVX2.
struct OtherTypes {
  double float64[3], bfloat16[3], float16[3];
};
constexpr OtherTypes kOneDnnTypes = {
    {0.45, 0.37, 0.38}, {0.60, 0.02, 0.02}, {0.60, 0.07, 0.09}};
constexpr OtherTypes kOneDnnAvx512Types = {
    {0.40, 0.34, 0.34}, {1.80, 1.60, 1.20}, {1.00, 0.12, 0.16}};
constexpr OtherTypes kEigenTypes = {
    {0.45, 0.37, 0.38}, {0.43, 0.02, 0.02}, {0.60, 0.07, 0.09}};
constexpr OtherTypes kEigenAvx512Types = {
    {0.40, 0.34, 0.34}, {0.44, 0.02, 0.02}, {0.60, 0.06, 0.08}};

// Multiply-adds at the peak that take as long as an element of an image of
// channels first that is transposed for kernels that do not know them.
constexpr double kTransposed = 80;

// Of few channels Eigen gathers element by element, in three dimensions most of
// all; there each element of an image costs it more even without a patch.
constexpr int64_t kFewChannels = 8;
constexpr double kEigenFewChannels = 2.5, kEigenFewChannels3d = 8;
constexpr double kEigenFewChannelsFilter = 1.5;
// The same of the gradient that an input gradient gathers.
constexpr int64_t kFewFilters = 17;
constexpr double kEigenFewFilters = 4;
constexpr double kEigenElement3d = 120;

// Matrix products of whole images, which Eigen is good at.
constexpr double kEigenPointwise = 0.8;

constexpr int64_t kWideTaps = 25;
// It writes images in blocks of so many channels.
constexpr double kOneDnnBlock = 8;

// Eigen's filter gradient of three dimensions hardly gets off the ground.
constexpr double kEigenFilterGradient3d = 0.005;
// Its input gradient of three dimensions multiplies patches that lie in a
// buffer: of one image, or if there are more, of as many as fill the last
// cache. Where that is more than so many times the operands it expands a
// gradient with strides by zeros, and gathers patches of these: seen to take
// 11 ns an element on Emerald Rapids, of whatever type.
constexpr double kEigenMostBuffer3d = 25;
constexpr double kEigenExpanded = 550;

// The same of depthwise convolutions, for kernels of at most 3 columns, and for
// others. Seen on Zen 3 with images of 14 to 112 pixels and 32 to 512 channels.
// They differ by up to two times, to both sides; oneDNN's filter gradient of
// wide kernels by more.
constexpr double kDepthwiseEigen[2][3] = {{0.09, 0.08, 0.08},
                                          {0.09, 0.08, 0.08}};

struct Engine {
  bool is_onednn = false;
  bool has_avx512 = false;
  bool halves_avx512 = false;
  bool has_avx2 = false;
  int lanes = 2;  // of float32, AVX-512 aside
  int64_t l3_bytes = 0;

  // Of Zen 4 only the efficiency is known.
  bool IsWide() const { return has_avx512 && !halves_avx512; }
  const OneDnn& Traits() const {
    return IsWide() ? kOneDnnAvx512 : kOneDnnAvx2;
  }
};

std::set<std::string> ProcessorFlags() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, 5, "flags") != 0) continue;
    std::istringstream words(line);
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

std::string LowerCaseVariable(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  for (char& c : text) {
    c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return text;
}

// The last cache of all cores as AMD's CPUID tells it, and Eigen reads it; 0
// where it tells none.
constexpr int64_t L3OfAmd(unsigned int edx) {
  return static_cast<int64_t>((edx & 0xfffc000) >> 18) * (512 << 10);
}
static_assert(L3OfAmd(0x01009140) == 32 << 20, "as a Zen 3 of 32 MiB tells it");

// As Eigen takes it: what the system tells of AMD's is a part.
int64_t L3Bytes() {
#ifdef __x86_64__
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) != 0 && b == signature_AMD_ebx) {
    const bool told = __get_cpuid(0x80000006, &a, &b, &c, &d) != 0;
    const int64_t bytes = told ? L3OfAmd(d) : 0;
    return bytes > 0 ? bytes : 2 << 20;
  }
  return ThisCpu().l3_bytes;
#else
  return 512 << 10;
#endif
}

Engine FindEngine() {
  // Not UsableIsas, which KCONV_MAX_ISA lowers: stock does not heed it.
  const std::set<std::string> flags = ProcessorFlags();
  const std::string wish = LowerCaseVariable("TF_ENABLE_ONEDNN_OPTS");
  Engine engine;
  engine.is_onednn = wish == "1" || wish == "true";
  if (wish.empty()) {
    // Processors on which TensorFlow takes oneDNN by itself.
    for (const char* flag :
         {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"}) {
      engine.is_onednn |= flags.count(flag) > 0;
    }
  }
  const std::string limit = LowerCaseVariable("ONEDNN_MAX_CPU_ISA");
  const bool allowed = limit.empty() || limit.compare(0, 6, "avx512") == 0 ||
                       limit.compare(0, 7, "default") == 0 ||
                       limit.compare(0, 3, "all") == 0;
  engine.has_avx512 = flags.count("avx512f") > 0 && allowed;
  engine.halves_avx512 = ThisCpu().halves_avx512;
  engine.has_avx2 =
      flags.count("avx2") > 0 && (allowed || limit.compare(0, 4, "avx2") == 0);
  engine.lanes = flags.count("avx2") > 0 ? 8 : 2;
  engine.l3_bytes = L3Bytes();
  return engine;
}

const Engine& ThisEngine() {
  static const Engine engine = FindEngine();
  return engine;
}

bool IsDepthwise(const ConvShape& s) {
  return s.spatial_dims < 3 && s.groups > 1 && s.GroupInChannels() == 1;
}

// What computes it: oneDNN knows no float64, and of depthwise convolutions with
// several filters a channel it takes none, or no faster than Eigen. Its float16
// filter gradient of three dimensions is a reference kernel, slow as Eigen's.
bool IsOneDnn(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.dtype == DType::kFloat16 && s.spatial_dims == 3 &&
      problem.pass == Pass::kFilterGradient) {
    return false;
  }
  return ThisEngine().is_onednn && problem.dtype != DType::kFloat64 &&
         !(IsDepthwise(s) && s.GroupOutChannels() > 1);
}

// Whether what it takes is known of AVX-512 itself. All else is reckoned by
// AVX2's peak.
bool IsWide(const Problem& problem) {
  return IsOneDnn(problem) && ThisEngine().IsWide();
}

// Multiply-accumulates at the peak that would take as long.
double DepthwiseWork(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const bool onednn = IsOneDnn(problem);
  double macs = problem.Macs();
  if (!onednn && problem.pass == Pass::kInputGradient) {
    // It looks at every tap for every pixel.
    for (int64_t stride : s.stride) macs *= static_cast<double>(stride);
  }
  const OneDnn& traits = ThisEngine().Traits();
  if (onednn && s.stride[kMaxSpatialDims - 1] > 1 &&
      problem.pass != Pass::kFilterGradient) {
    macs *= traits.depthwise_strided;
  }
  const auto& efficiency = onednn ? traits.depthwise : kDepthwiseEigen;
  const bool wide = s.kernel[kMaxSpatialDims - 1] > 3;
  const int pass = static_cast<int>(problem.pass);
  const double elements =
      static_cast<double>(s.InputElements() + s.OutputElements());
  return macs / efficiency[wide][pass] +
         (onednn ? traits.depthwise_element[pass] * elements : 0.0);
}

// Whether Eigen gathers patches of a gradient that is expanded by zeros.
bool IsExpanded(const Problem& problem) {
  const ConvShape& s = problem.shape;
  if (IsOneDnn(problem) || s.spatial_dims < 3 ||
      problem.pass != Pass::kInputGradient ||
      *std::max_element(s.stride, s.stride + kMaxSpatialDims) == 1) {
    return false;
  }
  const double patches = static_cast<double>(s.OutputPixels()) *
                         static_cast<double>(s.KernelTaps()) *
                         static_cast<double>(s.in_channels);
  const double filter = static_cast<double>(s.FilterElements());
  const double output = static_cast<double>(s.OutputElements());
  const double image = patches + filter + output / static_cast<double>(s.batch);
  const double cached = static_cast<double>(ThisEngine().l3_bytes) /
                        static_cast<double>(SizeOf(problem.dtype));
  const double images = s.batch == 1 ? 1 : std::ceil(cached / image);
  const double operands =
      static_cast<double>(s.InputElements()) + filter + output;
  return std::floor(images * patches / operands) > kEigenMostBuffer3d;
}

const Rate& RateOf(const Problem& problem) {
  return (IsOneDnn(problem) ? ThisEngine().Traits().rates
                            : kEigen)[static_cast<int>(problem.pass)];
}

double EfficiencyOf(const Problem& problem) {
  const int pass = static_cast<int>(problem.pass);
  const bool is_onednn = IsOneDnn(problem);
  const bool has_avx512 = ThisEngine().has_avx512;
  if (!is_onednn && problem.shape.spatial_dims == 3 &&
      problem.pass == Pass::kFilterGradient) {
    return kEigenFilterGradient3d;
  }
  const OtherTypes& types =
      is_onednn ? (has_avx512 ? kOneDnnAvx512Types : kOneDnnTypes)
                : (has_avx512 ? kEigenAvx512Types : kEigenTypes);
  switch (problem.dtype) {
    case DType::kFloat32:
      break;
    case DType::kFloat64:
      return types.float64[pass];
    case DType::kBFloat16:
      return types.bfloat16[pass] / (IsWide(problem) ? 2 : 1);
    case DType::kFloat16:
      return types.float16[pass] / (IsWide(problem) ? 2 : 1);
  }
  if (!has_avx512 || IsWide(problem)) return RateOf(problem).efficiency;
  return (is_onednn ? kOneDnnHalved : kEigenAvx512)[pass];
}

double DenseWork(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const Rate& rate = RateOf(problem);
  const double macs = problem.Macs();
  // The channels that each gathered element is multiplied for.
  const int64_t columns = problem.pass == Pass::kInputGradient
                              ? s.GroupInChannels()
                              : s.out_channels;
  const bool is_3d = s.spatial_dims == 3;
  const bool is_pointwise = s.KernelTaps() == 1;
  double products = macs / EfficiencyOf(problem);
  double gathered = rate.gathered * macs / static_cast<double>(columns);
  double element = rate.element;
  if (IsOneDnn(problem)) {
    const OneDnn& traits = ThisEngine().Traits();
    if (is_3d && !is_pointwise && problem.pass != Pass::kForward) {
      products *= traits.gradients3d;
    }
    if (s.KernelTaps() >= kWideTaps && problem.pass != Pass::kFilterGradient) {
      products *= traits.wide;
    }
    if (s.stride[kMaxSpatialDims - 1] > 1) {
      products *= traits.strided[static_cast<int>(problem.pass)];
    }
    const double channels = static_cast<double>(s.in_channels);
    if (problem.pass == Pass::kInputGradient && channels < kOneDnnBlock &&
        problem.dtype == DType::kFloat32) {
      products *= kOneDnnBlock / channels;
      gathered += traits.pixel * static_cast<double>(s.batch * s.InputPixels());
    }
  } else {
    if (!is_pointwise && s.GroupInChannels() < kFewChannels) {
      if (problem.pass == Pass::kForward) {
        gathered *= is_3d ? kEigenFewChannels3d : kEigenFewChannels;
      } else if (problem.pass == Pass::kFilterGradient) {
        gathered *= kEigenFewChannelsFilter;
      }
    }
    if (!is_pointwise && problem.pass == Pass::kInputGradient &&
        s.out_channels < kFewFilters) {
      gathered *= kEigenFewFilters;
    }
    if (is_3d) element = std::max(element, kEigenElement3d);
    if (IsExpanded(problem)) {
      const double pixels = static_cast<double>(s.InputPixels());
      products *= pixels / static_cast<double>(s.OutputPixels());
      gathered = kEigenExpanded * static_cast<double>(s.batch) * pixels *
                 static_cast<double>(s.KernelTaps() * s.out_channels) /
                 (problem.dtype == DType::kFloat64 ? 2 : 1);
    }
    if (is_pointwise && !is_3d && s.stride[kMaxSpatialDims - 1] == 1) {
      products *= kEigenPointwise;
      gathered *= kEigenPointwise;
    }
  }
  return products + gathered +
         element * static_cast<double>(s.InputElements() + s.OutputElements()) +
         rate.weight * static_cast<double>(s.FilterElements());
}

}  // namespace

const char* StockRefuse(const Problem& problem) {
  const ConvShape& s = problem.shape;
  const int64_t sizes[] = {s.InputElements(), s.FilterElements(),
                           s.OutputElements()};
  if (*std::min_element(sizes, sizes + 3) == 0) {
    return "The problem is empty: there is nothing to win.";
  }
  if (*std::max_element(sizes, sizes + 3) >
      std::numeric_limits<int32_t>::max()) {
    return "Stock kernels count elements in 32 bits.";
  }
  return nullptr;
}

double StockCost(const Problem& problem, const Cpu& cpu) {
  double lanes = IsWide(problem) ? 16 : ThisEngine().lanes;
  double work =
      IsDepthwise(problem.shape) ? DepthwiseWork(problem) : DenseWork(problem);
  if (problem.shape.layout == Layout::kChannelsFirst) {
    work += kTransposed * static_cast<double>(problem.shape.InputElements() +
                                              problem.shape.OutputElements());
  }
  if (problem.dtype == DType::kFloat64) lanes /= 2;
  return RateOf(problem).overhead + work / (cpu.frequency * lanes * 2);
}

const char* StockEngine() {
  return ThisEngine().is_onednn ? "oneDNN" : "Eigen";
}

bool StockIsOneDnnOfAvx512() {
  return ThisEngine().is_onednn && ThisEngine().IsWide();
}

bool StockIsEigenOfAvx2() {
  const Engine& engine = ThisEngine();
  return !engine.is_onednn && !engine.has_avx512 && engine.has_avx2;
}

}  // namespace kconv
