// Hands out the parts of a workspace, each on a cache line. From null it only
// counts.

#ifndef KCONV_ALGORITHMS_GROUPED_ARENA_H_
#define KCONV_ALGORITHMS_GROUPED_ARENA_H_

#include <cstdint>

#include "split.h"

namespace kconv::grouped {

class Arena {
 public:
  explicit Arena(void* begin) : at_(reinterpret_cast<intptr_t>(begin)) {}

  template <typename T>
  T* Take(int64_t count) {
    T* taken = reinterpret_cast<T*>(at_);
    at_ += RoundUp(count * int64_t{sizeof(T)}, 64);
    return taken;
  }
  int64_t Bytes() const { return at_; }

 private:
  intptr_t at_;
};

// For the scheduler only: how fast the sums run, about.
inline constexpr double kMacsPerSecond = 2e10;

}  // namespace kconv::grouped

#endif  // KCONV_ALGORITHMS_GROUPED_ARENA_H_
