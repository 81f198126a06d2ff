#include "tf/workspace_meter.h"

#include <atomic>

namespace kconv::tf {
namespace {

std::atomic<int64_t> in_use{0};
std::atomic<int64_t> peak{0};

}  // namespace

WorkspaceMeter::WorkspaceMeter(int64_t bytes) : bytes_(bytes) {
  const int64_t now = in_use += bytes_;
  int64_t most = peak;
  while (most < now && !peak.compare_exchange_weak(most, now)) {
  }
}

WorkspaceMeter::~WorkspaceMeter() { in_use -= bytes_; }

int64_t WorkspaceMeter::Peak() { return peak; }

void WorkspaceMeter::ResetPeak() { peak = in_use.load(); }

}  // namespace kconv::tf
