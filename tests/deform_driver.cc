// Runs the kernels of deformable convolution on offsets of all kinds, every
// array in a heap block of just its size: for the address sanitizer.

#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "deformable/deformable.h"
#include "half.h"
#include "python/thread_context.h"

namespace kconv {
namespace {

struct Case {
  int64_t batch, height, width, kernel_h, kernel_w, channels, filters, groups,
      offset_groups, stride, dilation, pad;
};

constexpr Case kCases[] = {
    {1, 5, 7, 3, 3, 8, 6, 1, 1, 1, 1, 1},
    {2, 9, 6, 3, 2, 12, 8, 4, 3, 2, 1, 2},
    {1, 6, 6, 3, 3, 7, 7, 7, 7, 1, 2, 2},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0},
    {1, 3, 4, 2, 2, 70, 5, 1, 2, 1, 1, 0},
    {1, 4, 3, 3, 3, 300, 20, 1, 1, 1, 1, 1},
    {1, 0, 3, 3, 3, 4, 2, 1, 1, 1, 1, 2},
    {0, 4, 4, 3, 3, 4, 2, 1, 1, 1, 1, 1},
};

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kStrange[] = {
    kInfinity, -kInfinity, std::nan(""), 1e30, -1e30, 3e38,
    -3e38,     9.3e18,     -9.3e18,      3e9,  -3e9,  1e5,
    -1,        -1.000001,  -0.9999999,   7,    1e-30};

// `strange` of 10 values are taken from the list.
template <typename Element>
std::unique_ptr<Element[]> Values(int64_t count, int strange,
                                  std::mt19937* random) {
  auto values = std::make_unique<Element[]>(static_cast<size_t>(count));
  std::normal_distribution<double> normal(0, 2);
  for (int64_t i = 0; i < count; ++i) {
    double value = normal(*random);
    if (static_cast<int>((*random)() % 10) < strange) {
      value = kStrange[(*random)() % std::size(kStrange)];
    }
    if constexpr (std::is_same_v<Element, double>) {
      values[i] = value;
    } else {
      // The conversion is not what is tested.
      constexpr double kMost = std::numeric_limits<float>::max();
      if (std::abs(value) > kMost) value = std::copysign(kInfinity, value);
      Narrow(static_cast<float>(value), &values[i]);
    }
  }
  return values;
}

struct Free {
  void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
};

template <typename Element>
int Run(const Case& c, DType dtype, Isa isa, bool mask, int strange) {
  DeformProblem problem;
  problem.dtype = dtype;
  problem.mask = mask;
  problem.epilogue = {true, Activation::kRelu};
  problem.shape.offset_groups = c.offset_groups;
  ConvShape& s = problem.shape.conv;
  s.batch = c.batch;
  s.in_channels = c.channels;
  s.out_channels = c.filters;
  s.groups = c.groups;
  const int64_t input[] = {c.height, c.width},
                kernel[] = {c.kernel_h, c.kernel_w};
  for (int i = 0; i < 2; ++i) {
    s.input[1 + i] = input[i];
    s.kernel[1 + i] = kernel[i];
    s.stride[1 + i] = c.stride;
    s.dilation[1 + i] = c.dilation;
    s.pad_before[1 + i] = s.pad_after[1 + i] = c.pad;
  }
  const std::string error = CompleteDeformShape(&problem.shape);
  if (!error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    return 1;
  }
  std::mt19937 random(7);
  const int64_t points = problem.shape.Pixels() * problem.shape.Points();
  const auto in = Values<Element>(s.InputElements(), 0, &random);
  const auto filter = Values<Element>(s.FilterElements(), 0, &random);
  const auto offsets = Values<Element>(2 * points, strange, &random);
  const auto masks = Values<Element>(points, strange / 2, &random);
  const auto bias = Values<Element>(s.out_channels, 0, &random);
  const auto upstream = Values<Element>(s.OutputElements(), 0, &random);
  for (Pass pass :
       {Pass::kForward, Pass::kInputGradient, Pass::kFilterGradient}) {
    for (int threads : {1, 3}) {
      problem.pass = pass;
      const int64_t elements = pass == Pass::kForward ? s.OutputElements()
                               : pass == Pass::kInputGradient
                                   ? s.InputElements()
                                   : s.FilterElements();
      const auto result = Values<Element>(elements, 0, &random);
      const auto by_offsets = Values<Element>(2 * points, 0, &random);
      const auto by_mask = Values<Element>(points, 0, &random);
      DeformArgs args;
      args.input = in.get();
      args.filter = filter.get();
      args.offsets = offsets.get();
      args.mask = mask ? masks.get() : nullptr;
      args.bias = bias.get();
      args.output = upstream.get();
      args.result = result.get();
      args.offsets_gradient = by_offsets.get();
      args.mask_gradient = mask ? by_mask.get() : nullptr;
      ThreadContext ctx(threads);
      ctx.isa = isa;
      const int64_t bytes = problem.shape.Pixels() == 0
                                ? 0
                                : DeformWorkspace(problem, isa, threads);
      const std::unique_ptr<char, Free> workspace(static_cast<char*>(
          ::operator new(static_cast<size_t>(bytes), std::align_val_t(64))));
      ctx.workspace = workspace.get();
      RunDeform(problem, args, &ctx);
    }
  }
  return 0;
}

int RunAll() {
  int failures = 0, runs = 0;
  for (Isa isa : UsableIsas()) {
    for (const Case& c : kCases) {
      for (bool mask : {false, true}) {
        for (int strange : {0, 3, 10}) {
          failures += Run<float>(c, DType::kFloat32, isa, mask, strange);
          failures += Run<double>(c, DType::kFloat64, isa, mask, strange);
          failures += Run<BFloat16>(c, DType::kBFloat16, isa, mask, strange);
          failures += Run<Float16>(c, DType::kFloat16, isa, mask, strange);
          runs += 4;
        }
      }
    }
  }
  std::printf("%d runs, %d failures\n", runs, failures);
  return failures;
}

}  // namespace
}  // namespace kconv

int main() { return kconv::RunAll() == 0 ? 0 : 1; }
