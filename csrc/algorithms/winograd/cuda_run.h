// Which Winograd kernels run for a problem, and by what: a GPU, or the host in
// its place.

#ifndef KCONV_ALGORITHMS_WINOGRAD_CUDA_RUN_H_
#define KCONV_ALGORITHMS_WINOGRAD_CUDA_RUN_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "algorithms/winograd/cuda_filter.h"
#include "algorithms/winograd/cuda_frequencies.h"
#include "algorithms/winograd/cuda_fused.h"
#include "algorithms/winograd/cuda_plan.h"
#include "conv.h"
#include "cuda/gemm.h"
#include "cuda/slices.h"
#include "elements.h"

namespace kconv::winograd {

template <int kOutputs>
int64_t CudaWorkspaceBytes(const Problem& problem) {
  const CudaPass pass = CudaPassOf(kOutputs, problem);
  return kOutputs == 2 && problem.pass != Pass::kFilterGradient
             ? CudaFusedFilter(pass).size * 4
             : CudaSlicesOf(kOutputs, problem, pass).Bytes();
}

// U of the image passes.
template <int kOutputs, typename Element, typename Planes, typename Launcher>
const char* CudaRunFilterTransform(const CudaPass& pass, const Planes& planes,
                                   const void* filter, float* u,
                                   const Launcher& launch) {
  using Table = CookToom<kOutputs, kCudaTaps>;
  const CudaFilterTransform<FilterMatrix<Table, kCudaTaps>, Element, Planes>
      kernel = {pass, planes, static_cast<const Element*>(filter), u};
  return launch(kernel, kernel.Launch());
}

template <typename Element>
CudaWriting<Element> CudaWritingOf(int outputs, const Problem& problem,
                                   const CudaPass& pass, const ConvArgs& args) {
  CudaWriting<Element> writing;
  writing.to = static_cast<Element*>(pass.gradient ? args.input : args.output);
  writing.bias = static_cast<const Element*>(args.bias);
  writing.activation = problem.epilogue.activation;
  writing.image = pass.written;
  writing.run = writing.RunOf(outputs);
  return writing;
}

template <typename Element, typename Launcher>
const char* CudaRunFused(const Problem& problem, const ConvArgs& args,
                         void* workspace, const Launcher& launch) {
  const CudaPass pass = CudaPassOf(2, problem);
  const CudaFusedPlanes planes = CudaFusedFilter(pass);
  auto* u = static_cast<float*>(workspace);
  const char* error =
      CudaRunFilterTransform<2, Element>(pass, planes, args.filter, u, launch);
  if (error != nullptr) return error;
  const auto run = [&](auto kernel) {
    kernel.pass = pass;
    kernel.planes = planes;
    kernel.read =
        static_cast<const Element*>(pass.gradient ? args.output : args.input);
    kernel.u = u;
    kernel.writing = CudaWritingOf<Element>(2, problem, pass, args);
    return launch(kernel, kernel.Launch());
  };
  return CudaNarrow(pass) ? run(CudaFused<Element, 8>())
                          : run(CudaFused<Element, 4>());
}

// Frequencies of a slice of the tiles.
template <typename Matrix, typename Element, typename Launcher>
const char* CudaRunTiles(const void* from, const CudaImage& image,
                         const CudaPass& pass, int64_t channels, int outputs,
                         int pad_y, int pad_x, const Split& slices,
                         int64_t slice, bool along_channels,
                         const CudaPlanes& planes, float* to,
                         const Launcher& launch) {
  CudaTileTransform<Matrix, Element> kernel;
  kernel.from = static_cast<const Element*>(from);
  kernel.image = image;
  kernel.tiling = pass.tiling;
  kernel.first = slices.Begin(slice);
  kernel.tiles = slices.Size(slice);
  kernel.groups = pass.groups;
  kernel.channels = channels;
  kernel.outputs = outputs;
  kernel.pad_y = pad_y;
  kernel.pad_x = pad_x;
  kernel.along_channels = along_channels;
  kernel.planes = planes;
  kernel.to = to;
  return launch(kernel, kernel.Launch());
}

// A product for each plane and group, a [depth][rows] by b [depth][columns].
inline cuda::Gemm CudaGemm(int64_t planes, int64_t groups, const float* a,
                           const CudaPlanes& a_planes, const float* b,
                           const CudaPlanes& b_planes, float* c,
                           const CudaPlanes& c_planes) {
  cuda::Gemm gemm;
  gemm.a = a;
  gemm.b = b;
  gemm.c = c;
  gemm.batch = planes * groups;
  gemm.a_row = a_planes.row;
  gemm.b_row = b_planes.row;
  gemm.c_row = c_planes.row;
  gemm.a_batch = a_planes.group;
  gemm.b_batch = b_planes.group;
  gemm.c_batch = c_planes.group;
  return gemm;
}

template <int kOutputs, typename Launcher>
const char* CudaRunSliced(const Problem& problem, const ConvArgs& args,
                          void* workspace, const Launcher& launch) {
  using Table = CookToom<kOutputs, kCudaTaps>;
  const CudaPass pass = CudaPassOf(kOutputs, problem);
  const CudaSlices s = CudaSlicesOf(kOutputs, problem, pass);
  auto* u = static_cast<float*>(workspace);
  float* v = u + s.u.size;
  float* m = v + s.v.size;
  const char* error = CudaRunFilterTransform<kOutputs, float>(
      pass, s.u, args.filter, u, launch);
  for (int64_t i = 0; i < s.tiles.count && error == nullptr; ++i) {
    error = CudaRunTiles<InputMatrix<Table>, float>(
        pass.gradient ? args.output : args.input, pass.read, pass,
        pass.channels, kOutputs, pass.pad_y, pass.pad_x, s.tiles, i,
        /*along_channels=*/false, s.v, v, launch);
    if (error != nullptr) return error;
    const int64_t tiles = s.tiles.Size(i);
    cuda::Gemm gemm =
        pass.last ? CudaGemm(s.planes, pass.groups, v, s.v, u, s.u, m, s.m)
                  : CudaGemm(s.planes, pass.groups, u, s.u, v, s.v, m, s.m);
    gemm.rows = pass.last ? tiles : pass.results;
    gemm.columns = pass.last ? pass.results : tiles;
    gemm.depth = pass.channels;
    error = cuda::RunGemm(gemm, launch);
    if (error != nullptr) return error;
    CudaResultTransform<OutputMatrix<Table, kOutputs>, float> kernel;
    kernel.from = m;
    kernel.planes = s.m;
    kernel.tiling = pass.tiling;
    kernel.first = s.tiles.Begin(i);
    kernel.tiles = tiles;
    kernel.groups = pass.groups;
    kernel.results = pass.results;
    kernel.writing = CudaWritingOf<float>(kOutputs, problem, pass, args);
    error = launch(kernel, kernel.Launch());
  }
  return error;
}

// F(3x3, kOutputs x kOutputs): the taps are the results, and the gradients of a
// tile of outputs are their taps.
template <int kOutputs, typename Element, typename Launcher>
const char* CudaRunFilterGradient(const Problem& problem, const ConvArgs& args,
                                  void* workspace, const Launcher& launch) {
  using Table = CookToom<kCudaTaps, kOutputs>;
  const CudaPass pass = CudaPassOf(kOutputs, problem);
  const CudaSlices s = CudaSlicesOf(kOutputs, problem, pass);
  auto* products = static_cast<float*>(workspace);
  float* v = products + s.Parts() * s.products.size;
  float* m = v + s.v.size;
  const char* error = nullptr;
  // Without tiles there is a sum of none.
  const int64_t count = std::max<int64_t>(1, s.tiles.count);
  for (int64_t i = 0; i < count; ++i) {
    error = CudaRunTiles<InputMatrix<Table>, Element>(
        args.input, pass.read, pass, pass.channels, kOutputs, pass.pad_y,
        pass.pad_x, s.tiles, i, /*along_channels=*/true, s.v, v, launch);
    if (error != nullptr) return error;
    error = CudaRunTiles<FilterMatrix<Table, kOutputs>, Element>(
        args.output, pass.written, pass, pass.results, kOutputs, 0, 0, s.tiles,
        i, /*along_channels=*/true, s.m, m, launch);
    if (error != nullptr) return error;
    cuda::Gemm gemm =
        CudaGemm(s.planes, pass.groups, v, s.v, m, s.m, products, s.products);
    gemm.rows = pass.channels;
    gemm.columns = pass.results;
    gemm.depth = s.tiles.Size(i);
    gemm.slices = s.Parts();
    gemm.slice_depth = s.parts.size;
    gemm.c_slice = s.products.size;
    gemm.add = i > 0;
    error = cuda::RunGemm(gemm, launch);
    if (error != nullptr) return error;
  }
  if (s.Parts() > 1) {
    // Each thread reads its elements before it writes the first of them.
    const cuda::AddSlices<float> add = {products, s.Parts(), s.products.size,
                                        products};
    error = launch(add, add.Launch());
    if (error != nullptr) return error;
  }
  const CudaFilterResult<OutputMatrix<Table, kCudaTaps>, Element> kernel = {
      pass, s.products, products, static_cast<Element*>(args.filter)};
  return launch(kernel, kernel.Launch());
}

// Calls run(element) with the problem's type, of those that kOutputs has.
template <int kOutputs, typename Run>
const char* CudaWithElement(const Problem& problem, const Run& run) {
  if constexpr (kOutputs != 2) {
    return run(float{});
  } else {
    const char* error = nullptr;
    WithElement(problem.dtype, [&](auto element) {
      if constexpr (!std::is_same_v<decltype(element), double>) {
        error = run(element);
      }
    });
    return error;
  }
}

template <int kOutputs, typename Launcher>
const char* CudaRunFilter(const Problem& problem, const ConvArgs& args,
                          void* workspace, const Launcher& launch) {
  return CudaWithElement<kOutputs>(problem, [&](auto element) {
    return CudaRunFilterGradient<kOutputs, decltype(element)>(
        problem, args, workspace, launch);
  });
}

template <int kOutputs, typename Launcher>
const char* CudaRunImage(const Problem& problem, const ConvArgs& args,
                         void* workspace, const Launcher& launch) {
  if constexpr (kOutputs != 2) {
    return CudaRunSliced<kOutputs>(problem, args, workspace, launch);
  } else {
    return CudaWithElement<kOutputs>(problem, [&](auto element) {
      return CudaRunFused<decltype(element)>(problem, args, workspace, launch);
    });
  }
}

template <int kOutputs, typename Launcher>
const char* CudaRunBy(const Problem& problem, const ConvArgs& args,
                      void* workspace, const Launcher& launch) {
  return problem.pass == Pass::kFilterGradient
             ? CudaRunFilter<kOutputs>(problem, args, workspace, launch)
             : CudaRunImage<kOutputs>(problem, args, workspace, launch);
}

}  // namespace kconv::winograd

#endif  // KCONV_ALGORITHMS_WINOGRAD_CUDA_RUN_H_
