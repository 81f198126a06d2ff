// Workspace in parts.

#ifndef KCONV_DEFORMABLE_ARENA_H_
#define KCONV_DEFORMABLE_ARENA_H_

#include <cstdint>

#include "split.h"

namespace kconv::deformable {

// Arrays laid one behind the other, each on a multiple of 64 bytes. With no
// memory below it, it only counts.
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <typename T>
  T* Take(int64_t count) {
    char* at = memory_ == nullptr ? nullptr : memory_ + bytes_;
    bytes_ += RoundUp(count * int64_t{sizeof(T)}, 64);
    return reinterpret_cast<T*>(at);
  }

  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

}  // namespace kconv::deformable

#endif  // KCONV_DEFORMABLE_ARENA_H_
