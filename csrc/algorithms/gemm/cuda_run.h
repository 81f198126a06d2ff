// Which kernels of gemm run for a problem, and by what: a GPU, or the host in
// its place.

#ifndef KCONV_ALGORITHMS_GEMM_CUDA_RUN_H_
#define KCONV_ALGORITHMS_GEMM_CUDA_RUN_H_

#include <cstdint>
#include <type_traits>

#include "algorithms/gemm/cuda_filter.h"
#include "algorithms/gemm/cuda_image.h"
#include "algorithms/gemm/cuda_plan.h"
#include "conv.h"
#include "cuda/slices.h"
#include "elements.h"

namespace kconv::gemm {

inline int64_t CudaWorkspaceBytes(const Problem& problem,
                                  int shape = kCudaBestShape) {
  switch (problem.pass) {
    case Pass::kForward:
      return 0;
    case Pass::kInputGradient:
      return problem.shape.FilterElements() * SizeOf(problem.dtype);
    case Pass::kFilterGradient:
      break;
  }
  const int64_t slices = CudaFilterPlanOf(problem, shape).Slices();
  return slices <= 1 ? 0 : slices * problem.shape.FilterElements() * 4;
}

// body(tile) of the shape of that number, in kCudaImageTiles.
template <typename Body>
const char* WithCudaImageTile(int shape, const Body& body) {
  switch (shape) {
    case 0:
      return body(CudaTile<128, 128, 8, 8>());
    case 1:
      return body(CudaTile<128, 64, 8, 8>());
    case 2:
      return body(CudaTile<256, 32, 8, 8>());
    case 3:
      return body(CudaTile<256, 16, 8, 4>());
    default:
      return body(CudaTile<256, 8, 4, 4>());
  }
}

// The same of kCudaFilterTiles.
template <typename Body>
const char* WithCudaFilterTile(int shape, const Body& body) {
  switch (shape) {
    case 0:
      return body(CudaTile<128, 128, 8, 8>());
    case 1:
      return body(CudaTile<128, 64, 8, 8>());
    case 2:
      return body(CudaTile<128, 32, 8, 4>());
    default:
      return body(CudaTile<64, 16, 4, 4>());
  }
}

// body(is_true) of a bool that the compiler knows.
template <typename Body>
const char* WithBool(bool value, const Body& body) {
  return value ? body(std::true_type()) : body(std::false_type());
}

template <typename Tile, bool kQuads, typename Launcher>
const char* CudaRunImageAs(const CudaImagePlan& plan, const Problem& problem,
                           const ConvArgs& args, const void* filter,
                           const Launcher& launch) {
  const bool gradient = problem.pass == Pass::kInputGradient;
  CudaImageKernel<Tile, kQuads> kernel;
  kernel.plan = plan;
  kernel.read = gradient ? args.output : args.input;
  kernel.filter = filter;
  kernel.bias = args.bias;
  kernel.activation = problem.epilogue.activation;
  kernel.written = gradient ? args.input : args.output;
  return launch(kernel, kernel.Launch());
}

template <typename Launcher>
const char* CudaRunImage(const Problem& problem, const ConvArgs& args,
                         void* workspace, const Launcher& launch,
                         int shape = kCudaBestShape) {
  const ConvShape& s = problem.shape;
  const bool gradient = problem.pass == Pass::kInputGradient;
  CudaImagePlan plan = CudaImagePlanOf(problem, shape);
  if (plan.blocks == 0) return nullptr;
  const void* filter = args.filter;
  if (gradient) {
    CudaTransposeFilter transpose;
    transpose.type = plan.type;
    transpose.in_channels = cuda::Divisor(s.in_channels);
    transpose.of_group = cuda::Divisor(s.GroupInChannels());
    transpose.group_out = cuda::Divisor(s.GroupOutChannels());
    transpose.in_of_group = static_cast<int>(s.GroupInChannels());
    transpose.out_of_group = static_cast<int>(s.GroupOutChannels());
    transpose.out_channels = static_cast<int>(s.out_channels);
    transpose.elements = static_cast<int>(s.FilterElements());
    transpose.filter = args.filter;
    transpose.to = workspace;
    const char* error = launch(transpose, transpose.Launch());
    if (error != nullptr) return error;
    filter = workspace;
  }
  const void* written = gradient ? args.input : args.output;
  const bool quads =
      plan.read_quads &&
      cuda::HoldsQuads(gradient ? args.output : args.input, plan.type);
  plan.filter_quads = plan.filter_quads && cuda::HoldsQuads(filter, plan.type);
  if (!cuda::HoldsQuads(written, plan.type)) {
    plan.written_quads = plan.written_rows = false;
  }
  return WithCudaImageTile(plan.shape, [&](auto tile) {
    return WithBool(quads, [&](auto by_quads) {
      return CudaRunImageAs<decltype(tile), by_quads()>(plan, problem, args,
                                                        filter, launch);
    });
  });
}

template <typename Launcher>
const char* CudaRunFilter(const Problem& problem, const ConvArgs& args,
                          void* workspace, const Launcher& launch,
                          int shape = kCudaBestShape) {
  const CudaFilterPlan plan = CudaFilterPlanOf(problem, shape);
  const bool quads = plan.quads && cuda::HoldsQuads(args.input, plan.type) &&
                     cuda::HoldsQuads(args.output, plan.type);
  const int64_t slices = plan.Slices();
  auto* partials = slices > 1 ? static_cast<float*>(workspace) : nullptr;
  const char* error = WithCudaFilterTile(plan.shape, [&](auto tile) {
    return WithBool(quads, [&](auto by_quads) {
      CudaFilterKernel<decltype(tile), by_quads()> kernel;
      kernel.plan = plan;
      kernel.input = args.input;
      kernel.output = args.output;
      kernel.partials = partials;
      kernel.filter = args.filter;
      return launch(kernel, kernel.Launch());
    });
  });
  if (error != nullptr || partials == nullptr) return error;
  WithElement(problem.dtype, [&](auto element) {
    using Element = decltype(element);
    // float64 is refused; its sums are of another type.
    if constexpr (!std::is_same_v<Element, double>) {
      const cuda::AddSlices<Element> add = {partials, slices,
                                            problem.shape.FilterElements(),
                                            static_cast<Element*>(args.filter)};
      error = launch(add, add.Launch());
    }
  });
  return error;
}

template <typename Launcher>
const char* CudaRunBy(const Problem& problem, const ConvArgs& args,
                      void* workspace, const Launcher& launch,
                      int shape = kCudaBestShape) {
  return problem.pass == Pass::kFilterGradient
             ? CudaRunFilter(problem, args, workspace, launch, shape)
             : CudaRunImage(problem, args, workspace, launch, shape);
}

}  // namespace kconv::gemm

#endif  // KCONV_ALGORITHMS_GEMM_CUDA_RUN_H_
