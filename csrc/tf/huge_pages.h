// Large buffers on large pages.

#ifndef KCONV_TF_HUGE_PAGES_H_
#define KCONV_TF_HUGE_PAGES_H_

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace kconv::tf {

// Asks the system to back a buffer that is about to be written by pages of 2
// MiB. TensorFlow returns large tensors to the system and takes them anew for
// each call, so most pages of a result are touched for the first time: with 4
// KiB each, that is a fault every 1024 floats. Only pages that lie within the
// buffer are asked for. A system that does not know or allow it does nothing.
inline void AdviseHugePages([[maybe_unused]] void* data,
                            [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{2} << 20;
  const uintptr_t at = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (at + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = (at + static_cast<uintptr_t>(bytes)) & ~(kPage - 1);
  if (begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace kconv::tf

#endif  // KCONV_TF_HUGE_PAGES_H_
