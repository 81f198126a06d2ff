// The kernels of the GPU on the host: the launchers' own steps, by every thread
// of every block, one after the other. A library that test_cuda_host.py loads.
//
// Memory that threads share, and operands, are allocated exactly, so that a
// build with an address sanitizer finds whatever leaves them.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "algorithms/depthwise/cuda_run.h"
#include "algorithms/direct/cuda_run.h"
#include "cuda/phases.h"
#include "cuda/problem.h"

namespace kconv {
namespace {

struct Free {
  void operator()(char* p) const { ::operator delete(p, std::align_val_t(16)); }
};
using Memory = std::unique_ptr<char, Free>;

Memory Allocate(int64_t bytes) {
  auto* p = static_cast<char*>(
      ::operator new(static_cast<size_t>(bytes), std::align_val_t(16)));
  std::memset(p, 0xff, static_cast<size_t>(bytes));  // NaN in every type
  return Memory(p);
}

// Runs the threads of a step from the first to the last, or backwards: within a
// step their order must not matter.
class Host {
 public:
  explicit Host(bool backwards) : backwards_(backwards) {}

  template <typename Kernel>
  const char* operator()(const Kernel& kernel,
                         const cuda::Launch& launch) const {
    if (launch.blocks == 0) return nullptr;
    if (launch.threads < 1 || launch.threads > Kernel::kMostThreads) {
      return "Threads of a block.";
    }
    if (launch.shared_bytes > (int64_t{99} << 10)) return "Shared memory.";
    if (sizeof(Kernel) > 4000) return "Size of the kernel's arguments.";
    for (int64_t i = 0; i < launch.blocks; ++i) {
      cuda::Thread thread;
      thread.block = backwards_ ? launch.blocks - 1 - i : i;
      thread.count = launch.threads;
      const Memory shared = Allocate(launch.shared_bytes);
      std::vector<typename Kernel::State> states(
          static_cast<size_t>(launch.threads));
      const int64_t steps = kernel.Steps(thread.block);
      for (int64_t step = 0; step < steps; ++step) {
        for (int j = 0; j < launch.threads; ++j) {
          thread.index = backwards_ ? launch.threads - 1 - j : j;
          kernel.Step(step, thread, shared.get(),
                      &states[static_cast<size_t>(thread.index)]);
        }
      }
    }
    return nullptr;
  }

 private:
  bool backwards_;
};

thread_local std::string said;

bool IsDirect(const char* algorithm) {
  return std::strcmp(algorithm, "direct") == 0;
}

}  // namespace
}  // namespace kconv

extern "C" {

const char* kconv_host_refuse(const char* algorithm,
                              const kconv_cuda_problem* asked) {
  kconv::Problem problem;
  kconv::said = kconv::cuda::ProblemOf(*asked, &problem);
  if (!kconv::said.empty()) return kconv::said.c_str();
  return kconv::IsDirect(algorithm) ? nullptr
                                    : kconv::depthwise::CudaRefusal(problem);
}

int64_t kconv_host_workspace(const char* algorithm,
                             const kconv_cuda_problem* asked) {
  kconv::Problem problem;
  if (!kconv::cuda::ProblemOf(*asked, &problem).empty()) return -1;
  return kconv::IsDirect(algorithm)
             ? kconv::direct::CudaWorkspaceBytes(problem)
             : kconv::depthwise::CudaWorkspaceBytes(problem);
}

// What a launch would look like: blocks, threads, bytes of shared memory.
void kconv_host_launch(const kconv_cuda_problem* asked, int64_t* launch) {
  kconv::Problem problem;
  kconv::cuda::ProblemOf(*asked, &problem);
  if (problem.pass == kconv::Pass::kFilterGradient) {
    const auto plan = kconv::depthwise::FilterPlanOf(problem);
    launch[0] = plan.Blocks();
    launch[1] = plan.threads;
    launch[2] = plan.SharedBytes();
  } else {
    const auto plan = kconv::depthwise::ImagePlanOf(problem);
    launch[0] = plan.blocks;
    launch[1] = plan.threads;
    launch[2] = plan.SharedBytes();
  }
}

// `shift` moves every tensor by that many elements away from its alignment.
const char* kconv_host_run(const char* algorithm,
                           const kconv_cuda_problem* asked,
                           const kconv_cuda_arguments* arguments, int backwards,
                           int shift) {
  using kconv::Pass;
  kconv::Problem problem;
  kconv::said = kconv::cuda::ProblemOf(*asked, &problem);
  if (!kconv::said.empty()) return kconv::said.c_str();
  const kconv::ConvShape& s = problem.shape;
  const int64_t size = kconv::SizeOf(problem.dtype), moved = shift * size;
  void* tensors[] = {arguments->input, arguments->filter, arguments->output};
  const int64_t bytes[] = {s.InputElements() * size, s.FilterElements() * size,
                           s.OutputElements() * size};
  const int written = problem.pass == Pass::kForward         ? 2
                      : problem.pass == Pass::kInputGradient ? 0
                                                             : 1;
  kconv::Memory copies[3];
  for (int i = 0; i < 3; ++i) {
    copies[i] = kconv::Allocate(bytes[i] + moved);
    if (i != written) {
      std::memcpy(copies[i].get() + moved, tensors[i],
                  static_cast<size_t>(bytes[i]));
    }
  }
  const auto workspace =
      kconv::Allocate(kconv_host_workspace(algorithm, asked));
  kconv::ConvArgs args;
  args.input = copies[0].get() + moved;
  args.filter = copies[1].get() + moved;
  args.output = copies[2].get() + moved;
  args.bias = arguments->bias;
  const kconv::Host host(backwards != 0);
  const char* error =
      kconv::IsDirect(algorithm)
          ? kconv::direct::CudaRunBy(problem, args, workspace.get(), host)
          : kconv::depthwise::CudaRunBy(problem, args, workspace.get(), host);
  std::memcpy(tensors[written], copies[written].get() + moved,
              static_cast<size_t>(bytes[written]));
  return error;
}

}  // extern "C"
