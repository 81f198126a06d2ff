#include "algorithms/fft/transforms.h"

#include <cmath>
#include <vector>

namespace kconv::fft {

extern const TransformSet kTransformsBaseline;
#ifdef KCONV_X86_KERNELS
extern const TransformSet kTransformsAvx2;
extern const TransformSet kTransformsAvx512;
#endif

namespace {

const TransformSet& SetFor([[maybe_unused]] Isa isa) {
#ifdef KCONV_X86_KERNELS
  if (isa == Isa::kAvx512) return kTransformsAvx512;
  if (isa == Isa::kAvx2) return kTransformsAvx2;
#endif
  return kTransformsBaseline;
}

// For each pass but the last, of a transform of n points by a radix r: for p <
// n / r and 0 < k < r the number exp(-2 pi i p k / n).
template <typename T>
std::vector<T> MakeTwiddles(int size) {
  constexpr double kPi = 3.14159265358979323846;
  std::vector<T> twiddles;
  int n = kSizes[size];
  for (int radix : kRadices[size]) {
    if (n == radix) break;
    for (int p = 0; p < n / radix; ++p) {
      for (int k = 1; k < radix; ++k) {
        const double angle = -2 * kPi * p * k / n;
        twiddles.push_back(static_cast<T>(std::cos(angle)));
        twiddles.push_back(static_cast<T>(std::sin(angle)));
      }
    }
    n /= radix;
  }
  return twiddles;
}

template <typename T>
struct AllTwiddles {
  std::vector<T> of_size[kSizeCount];

  AllTwiddles() {
    for (int i = 0; i < kSizeCount; ++i) of_size[i] = MakeTwiddles<T>(i);
  }
};

}  // namespace

template <>
const Transforms<float>& TransformsFor<float>(Isa isa) {
  return SetFor(isa).float32;
}
template <>
const Transforms<double>& TransformsFor<double>(Isa isa) {
  return SetFor(isa).float64;
}
template <>
const Transforms<BFloat16>& TransformsFor<BFloat16>(Isa isa) {
  return SetFor(isa).bfloat16;
}
template <>
const Transforms<Float16>& TransformsFor<Float16>(Isa isa) {
  return SetFor(isa).float16;
}

template <typename T>
Grid<T> GridOf(int size1, int size2) {
  static const AllTwiddles<T> twiddles;
  return {{size1, size2},
          {kSizes[size1], kSizes[size2]},
          {twiddles.of_size[size1].data(), twiddles.of_size[size2].data()}};
}

template Grid<float> GridOf<float>(int, int);
template Grid<double> GridOf<double>(int, int);

}  // namespace kconv::fft
