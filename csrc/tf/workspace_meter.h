// How much workspace the ops of this process have in use, and had at most.

#ifndef KCONV_TF_WORKSPACE_METER_H_
#define KCONV_TF_WORKSPACE_METER_H_

#include <cstdint>

namespace kconv::tf {

// Counts bytes as in use as long as it lives.
class WorkspaceMeter {
 public:
  explicit WorkspaceMeter(int64_t bytes);
  ~WorkspaceMeter();
  WorkspaceMeter(const WorkspaceMeter&) = delete;
  WorkspaceMeter& operator=(const WorkspaceMeter&) = delete;

  // The most that was in use at a time, by several ops together.
  static int64_t Peak();
  // Sets it to what is in use now.
  static void ResetPeak();

 private:
  const int64_t bytes_;
};

}  // namespace kconv::tf

#endif  // KCONV_TF_WORKSPACE_METER_H_
