// The GPU library on the host: csrc/cuda/kconv_cuda.h over the kernels' own
// steps, which the threads of each block take one after the other. "Device
// pointers" are the host's. tests/cuda_twin.py builds and calls it.

#include "cuda_host.h"

#include <cstdint>
#include <cstring>

#include "algorithms/depthwise/cuda_run.h"
#include "algorithms/direct/cuda_run.h"
#include "algorithms/gemm/cuda_run.h"
#include "algorithms/grouped/cuda_run.h"
#include "algorithms/winograd/cuda_run.h"
#include "cuda/algorithms.h"
#include "cuda/kconv_cuda.h"
#include "cuda/problem.h"

namespace kconv::host {

Manner manner;
std::atomic<int64_t> runs{0};

namespace {

// Runs on copies of the tensors, which are as long as they must be.
template <typename Twin>
const char* RunOnHost(const Problem& problem, const ConvArgs& args,
                      void* workspace, void*) {
  ++runs;
  const ConvShape& s = problem.shape;
  const int64_t size = SizeOf(problem.dtype), moved = manner.shift * size;
  void* tensors[] = {args.input, args.filter, args.output};
  const int64_t bytes[] = {s.InputElements() * size, s.FilterElements() * size,
                           s.OutputElements() * size};
  const int written = problem.pass == Pass::kForward         ? 2
                      : problem.pass == Pass::kInputGradient ? 0
                                                             : 1;
  Memory copies[3];
  for (int i = 0; i < 3; ++i) {
    copies[i] = Allocate(bytes[i] + moved);
    if (i != written) {
      std::memcpy(copies[i].get() + moved, tensors[i],
                  static_cast<size_t>(bytes[i]));
    }
  }
  const int64_t workspace_bytes = Twin::Workspace(problem);
  const Memory own = Allocate(workspace_bytes);
  if (workspace_bytes > 0) {
    // Whoever calls must have given so much.
    std::memset(workspace, 0xff, static_cast<size_t>(workspace_bytes));
  }
  ConvArgs moved_args = args;
  moved_args.input = copies[0].get() + moved;
  moved_args.filter = copies[1].get() + moved;
  moved_args.output = copies[2].get() + moved;
  const char* error =
      Twin::Run(problem, moved_args, own.get(), Launcher(manner.backwards));
  std::memcpy(tensors[written], copies[written].get() + moved,
              static_cast<size_t>(bytes[written]));
  return error;
}

template <typename Twin>
const char* Record(const Problem& problem, cuda::Launch* most) {
  return Twin::Run(problem, ConvArgs(), nullptr, Recorder(most));
}

// gemm by tiles of one shape, which its own choice would take for problems too
// large to run here.
template <int kShape>
int64_t GemmWorkspace(const Problem& problem) {
  return gemm::CudaWorkspaceBytes(problem, kShape);
}
template <int kShape, typename Launcher>
const char* RunGemm(const Problem& problem, const ConvArgs& args,
                    void* workspace, const Launcher& launch) {
  return gemm::CudaRunBy(problem, args, workspace, launch, kShape);
}

// The algorithms of csrc/cuda/algorithms.cc, by what their cuda_*.h have, and
// parts of them that tests ask for.
#define KCONV_TWINS(X)                                                        \
  X(Depthwise, "depthwise", depthwise::CudaRefusal,                           \
    depthwise::CudaWorkspaceBytes, depthwise::CudaRunBy, true)                \
  X(Winograd4, "winograd:f4", winograd::CudaRefusal<4>,                       \
    winograd::CudaWorkspaceBytes<4>, winograd::CudaRunBy<4>, false)           \
  X(Winograd2, "winograd:f2", winograd::CudaRefusal<2>,                       \
    winograd::CudaWorkspaceBytes<2>, winograd::CudaRunBy<2>, false)           \
  X(Grouped, "grouped", grouped::CudaRefusal, grouped::CudaWorkspaceBytes,    \
    grouped::CudaRunBy, true)                                                 \
  X(Gemm, "gemm", gemm::CudaRefusal, gemm::CudaWorkspaceBytes,                \
    gemm::CudaRunBy, true)                                                    \
  X(Direct, "direct", nullptr, direct::CudaWorkspaceBytes, direct::CudaRunBy, \
    true)                                                                     \
  X(Gemm0, "gemm:0", gemm::CudaRefusal, GemmWorkspace<0>, RunGemm<0>, true)   \
  X(Gemm1, "gemm:1", gemm::CudaRefusal, GemmWorkspace<1>, RunGemm<1>, true)   \
  X(Gemm2, "gemm:2", gemm::CudaRefusal, GemmWorkspace<2>, RunGemm<2>, true)   \
  X(Gemm3, "gemm:3", gemm::CudaRefusal, GemmWorkspace<3>, RunGemm<3>, true)   \
  X(Gemm4, "gemm:4", gemm::CudaRefusal, GemmWorkspace<4>, RunGemm<4>, true)

#define KCONV_TWIN(Twin, name, refuse, workspace, run, strict)           \
  struct Twin {                                                          \
    static int64_t Workspace(const Problem& problem) {                   \
      return workspace(problem);                                         \
    }                                                                    \
    template <typename Launcher>                                         \
    static const char* Run(const Problem& problem, const ConvArgs& args, \
                           void* memory, const Launcher& launch) {       \
      return run(problem, args, memory, launch);                         \
    }                                                                    \
  };
KCONV_TWINS(KCONV_TWIN)

struct Recording {
  const char* name;
  const char* (*record)(const Problem&, cuda::Launch*);
};
#define KCONV_RECORDING(Twin, name, ...) {name, Record<Twin>},
constexpr Recording kRecordings[] = {KCONV_TWINS(KCONV_RECORDING)};

}  // namespace
}  // namespace kconv::host

namespace kconv::cuda {

#define KCONV_GPU_ALGORITHM(Twin, name, refuse, workspace, run, strict) \
  {name, refuse, host::Twin::Workspace, host::RunOnHost<host::Twin>, strict},
const GpuAlgorithm kGpuAlgorithms[] = {
    KCONV_TWINS(KCONV_GPU_ALGORITHM){nullptr, nullptr, nullptr, nullptr}};

}  // namespace kconv::cuda

int kconv_cuda_runtime_version() { return 13000; }
int kconv_cuda_driver_version() { return 13000; }
int kconv_cuda_devices() { return 1; }

extern "C" {

void kconv_host_manner(int backwards, int shift) {
  kconv::host::manner = {backwards != 0, shift};
}

int64_t kconv_host_runs() { return kconv::host::runs; }

// The most blocks, threads and bytes of shared memory of what would be
// launched. Null, or what no GPU would launch.
const char* kconv_host_launch(const char* algorithm,
                              const kconv_cuda_problem* asked,
                              int64_t* launch) {
  kconv::Problem problem;
  if (!kconv::cuda::ProblemOf(*asked, &problem).empty()) return "Problem.";
  for (const auto& one : kconv::host::kRecordings) {
    if (std::strcmp(one.name, algorithm) != 0) continue;
    kconv::cuda::Launch most;
    const char* error = one.record(problem, &most);
    launch[0] = most.blocks;
    launch[1] = most.threads;
    launch[2] = most.shared_bytes;
    return error;
  }
  return "No such algorithm.";
}

}  // extern "C"
