// Runs algorithms on problems of all kinds, every array in a heap block of just
// its size: for the address sanitizer. KCONV_TESTED lists the algorithms.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <new>
#include <random>
#include <string>

#include "conv.h"
#include "cpu.h"
#include "elements.h"
#include "half.h"
#include "python/thread_context.h"

namespace kconv {

#define KCONV_ALGORITHM(family) extern const Algorithm kAlgorithm_##family;
#define KCONV_VARIANT(family, variant) \
  extern const Algorithm kAlgorithm_##family##_##variant;
#include "algorithms.inc"
#undef KCONV_ALGORITHM
#undef KCONV_VARIANT

namespace {

constexpr const Algorithm* kTested[] = {KCONV_TESTED};

struct Axes {
  int64_t of[3];
};

struct Case {
  int dims;
  int64_t batch, channels, filters, groups;
  Axes size, kernel;
  Axes stride = {{1, 1, 1}}, dilation = {{1, 1, 1}};
  Axes before = {{0, 0, 0}}, after = {{0, 0, 0}};
};

constexpr Axes kOnes = {{1, 1, 1}};

constexpr Case kCases[] = {
    // Of few taps: dense, with each odd one out, then in groups.
    {2, 2, 5, 7, 1, {{9, 7}}, {{3, 3}}, kOnes, kOnes, {{1, 1}}, {{1, 1}}},
    {2, 1, 33, 19, 1, {{13, 17}}, {{3, 3}}},
    {2, 1, 3, 70, 1, {{6, 23}}, {{5, 5}}, kOnes, kOnes, {{2, 2}}, {{2, 2}}},
    {2, 1, 6, 9, 1, {{8, 11}}, {{2, 3}}, kOnes, kOnes, {{0, 1}}, {{1, 1}}},
    {2, 2, 4, 6, 1, {{11, 10}}, {{3, 3}}, {{2, 2}}, kOnes, {{0, 1}}, {{1, 1}}},
    {2, 1, 9, 3, 1, {{11, 14}}, {{4, 2}}, {{2, 1}}, kOnes, {{1, 0}}, {{1, 1}}},
    {2, 1, 4, 5, 1, {{12, 9}}, {{3, 3}}, kOnes, {{2, 3}}, {{2, 3}}, {{2, 3}}},
    {2, 1, 3, 2, 1, {{4, 5}}, {{3, 3}}, kOnes, kOnes, {{5, 4}}, {{6, 3}}},
    {2, 1, 17, 12, 1, {{5, 6}}, {{1, 1}}},
    {2, 1, 1, 1, 1, {{1, 1}}, {{1, 1}}},
    {2, 1, 12, 8, 4, {{7, 9}}, {{3, 3}}, kOnes, kOnes, {{1, 1}}, {{1, 1}}},
    {2, 1, 64, 64, 2, {{6, 7}}, {{3, 3}}, kOnes, kOnes, {{1, 1}}, {{1, 1}}},
    {2, 2, 13, 13, 13, {{9, 8}}, {{3, 3}}, kOnes, kOnes, {{1, 1}}, {{1, 1}}},
    {2, 1, 5, 15, 5, {{9, 12}}, {{5, 5}}, {{2, 2}}, kOnes, {{2, 1}}, {{2, 2}}},
    {2, 1, 9, 9, 9, {{11, 9}}, {{3, 3}}, kOnes, {{2, 2}}, {{2, 2}}, {{2, 2}}},
    {2, 1, 3, 3, 3, {{5, 4}}, {{3, 2}}, {{3, 1}}, kOnes, {{4, 0}}, {{1, 3}}},
    {1, 2, 6, 5, 1, {{31}}, {{3}}, {{1}}, {{4}}, {{8}}, {{0}}},
    {1, 1, 7, 7, 7, {{29}}, {{5}}, {{2}}, {{1}}, {{2}}, {{2}}},
    {3, 1, 4, 5, 1, {{4, 5, 6}}, {{3, 3, 3}}, kOnes, kOnes, kOnes, kOnes},
    {3, 1, 6, 6, 6, {{4, 3, 5}}, {{2, 3, 3}}, {{1, 2, 1}}},
    {2, 0, 4, 4, 1, {{6, 5}}, {{3, 3}}},
    {2, 1, 3, 4, 1, {{0, 5}}, {{3, 3}}, kOnes, kOnes, {{2, 1}}, {{3, 1}}},
    // Of many.
    {2, 1, 6, 9, 1, {{20, 31}}, {{7, 8}}, kOnes, kOnes, {{3, 3}}, {{3, 4}}},
    {2, 1, 8, 4, 2, {{9, 9}}, {{7, 7}}, kOnes, {{2, 1}}, {{6, 3}}, {{6, 3}}},
    {1, 1, 2, 3, 1, {{300}}, {{128}}, {{1}}, {{1}}, {{64}}, {{63}}},
    {2, 2, 5, 7, 1, {{20, 21}}, {{9, 9}}, kOnes, kOnes, {{4, 4}}, {{4, 4}}},
    {2, 1, 34, 38, 2, {{14, 15}}, {{9, 9}}, kOnes, kOnes, {{4, 4}}, {{4, 4}}},
    {2, 1, 3, 17, 1, {{23, 30}}, {{9, 12}}},
    {2, 1, 2, 3, 1, {{7, 6}}, {{17, 31}}, kOnes, kOnes, {{8, 15}}, {{8, 15}}},
    {2, 1, 3, 4, 1, {{4, 6}}, {{9, 9}}, kOnes, kOnes, {{13, 0}}, {{4, 21}}},
    {2, 1, 3, 2, 1, {{37, 40}}, {{9, 10}}, kOnes, {{2, 3}}},
    {2, 1, 3, 2, 1, {{9, 60}}, {{1, 15}}, kOnes, kOnes, {{0, 7}}, {{0, 7}}},
    {2, 1, 3, 3, 1, {{60, 9}}, {{15, 2}}, kOnes, kOnes, {{7, 0}}, {{7, 1}}},
    {2,
     2,
     19,
     19,
     19,
     {{30, 33}},
     {{13, 13}},
     kOnes,
     kOnes,
     {{6, 6}},
     {{6, 6}}},
    {2, 1, 5, 15, 5, {{15, 16}}, {{9, 11}}, kOnes, kOnes, {{4, 5}}, {{4, 5}}},
    {2, 1, 3, 3, 3, {{150, 14}}, {{11, 9}}, kOnes, kOnes, {{5, 4}}, {{5, 4}}},
    {2,
     1,
     8,
     8,
     8,
     {{16, 33}},
     {{31, 31}},
     {{2, 2}},
     kOnes,
     {{15, 15}},
     {{15, 15}}},
    {1, 2, 3, 4, 1, {{150}}, {{9}}},
    {1, 1, 3, 2, 1, {{200}}, {{101}}, {{1}}, {{1}}, {{50}}, {{50}}},
    {2, 0, 4, 4, 4, {{12, 12}}, {{9, 9}}},
};

ConvShape ShapeOf(const Case& c, Layout layout) {
  ConvShape s;
  s.layout = layout;
  s.spatial_dims = c.dims;
  s.batch = c.batch;
  s.in_channels = c.channels;
  s.out_channels = c.filters;
  s.groups = c.groups;
  for (int i = 0; i < c.dims; ++i) {
    const int axis = kMaxSpatialDims - c.dims + i;
    s.input[axis] = c.size.of[i];
    s.kernel[axis] = c.kernel.of[i];
    s.stride[axis] = c.stride.of[i];
    s.dilation[axis] = c.dilation.of[i];
    s.pad_before[axis] = c.before.of[i];
    s.pad_after[axis] = c.after.of[i];
  }
  return s;
}

struct Free {
  void operator()(char* p) const { ::operator delete(p, std::align_val_t(64)); }
};

// Not made by new[], whose blocks for no element are of one byte.
std::unique_ptr<char, Free> Block(int64_t bytes) {
  return std::unique_ptr<char, Free>(static_cast<char*>(
      ::operator new(static_cast<size_t>(bytes), std::align_val_t(64))));
}

template <typename Element>
std::unique_ptr<Element[]> Values(int64_t count, std::mt19937* random) {
  auto values = std::make_unique<Element[]>(static_cast<size_t>(count));
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < count; ++i) Narrow(normal(*random), &values[i]);
  return values;
}

// Runs a problem, and if `prepares` by a prepared filter. Returns whether it
// ran.
template <typename Element>
bool Run(const Algorithm& algorithm, const Problem& problem, Isa isa,
         int threads, bool prepares) {
  const ConvShape& s = problem.shape;
  if (algorithm.refuse(problem) != nullptr) return false;
  std::mt19937 random(7);
  const auto input = Values<Element>(s.InputElements(), &random);
  const auto filter = Values<Element>(s.FilterElements(), &random);
  const auto output = Values<Element>(s.OutputElements(), &random);
  const auto bias = Values<Element>(problem.WrittenChannels(), &random);
  ConvArgs args;
  args.input = input.get();
  args.filter = filter.get();
  args.output = output.get();
  if (problem.epilogue.bias) args.bias = bias.get();
  const int64_t bytes =
      prepares ? algorithm.prepared_bytes(problem, isa) : int64_t{0};
  if (prepares && bytes == 0) return false;
  const auto prepared = Block(bytes);
  if (prepares) {
    algorithm.prepare(problem, isa, filter.get(), prepared.get());
    args.prepared = prepared.get();
  }
  ThreadContext ctx(threads);
  ctx.isa = isa;
  const auto workspace = Block(algorithm.workspace(problem, isa, threads));
  ctx.workspace = workspace.get();
  if (const char* error = algorithm.run(problem, args, &ctx)) {
    std::fprintf(stderr, "%s\n", error);
    std::abort();
  }
  return true;
}

int RunAll(const Algorithm& algorithm, const Case& c, Isa isa) {
  int runs = 0;
  for (Layout layout : {Layout::kChannelsLast, Layout::kChannelsFirst}) {
    Problem problem;
    problem.shape = ShapeOf(c, layout);
    const std::string error = CompleteShape(&problem.shape);
    if (!error.empty()) {
      std::fprintf(stderr, "%s\n", error.c_str());
      std::abort();
    }
    for (Pass pass :
         {Pass::kForward, Pass::kInputGradient, Pass::kFilterGradient}) {
      problem.pass = pass;
      for (DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16,
                          DType::kFloat16}) {
        problem.dtype = dtype;
        problem.epilogue = {};
        // Once plain by one thread, once with all that may follow by three.
        for (int threads : {1, 3}) {
          WithElement(dtype, [&](auto element) {
            using Element = decltype(element);
            runs += Run<Element>(algorithm, problem, isa, threads, false);
            if (pass == Pass::kForward) {
              runs += Run<Element>(algorithm, problem, isa, threads, true);
            }
          });
          if (pass != Pass::kFilterGradient) {
            problem.epilogue = {true, Activation::kRelu};
          }
        }
      }
    }
  }
  return runs;
}

}  // namespace
}  // namespace kconv

int main() {
  for (const kconv::Algorithm* algorithm : kconv::kTested) {
    for (kconv::Isa isa : kconv::UsableIsas()) {
      int runs = 0;
      for (const kconv::Case& c : kconv::kCases) {
        runs += kconv::RunAll(*algorithm, c, isa);
      }
      std::printf("%s: %d runs\n", algorithm->name, runs);
    }
  }
}
