// Cutting work into parts.

#ifndef KCONV_SPLIT_H_
#define KCONV_SPLIT_H_

#include <algorithm>
#include <cstdint>

namespace kconv {

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t RoundUp(int64_t a, int64_t b) { return CeilDivide(a, b) * b; }

// `total` in `parts` ranges, each but the last a multiple of `unit`.
struct Split {
  int64_t total = 0;
  int64_t size = 1;   // of a range
  int64_t count = 0;  // of ranges

  Split() = default;
  Split(int64_t total, int64_t parts, int64_t unit) : total(total) {
    size = std::max(
        unit, RoundUp(CeilDivide(total, std::max<int64_t>(parts, 1)), unit));
    count = CeilDivide(total, size);
  }
  int64_t Begin(int64_t i) const { return i * size; }
  int64_t End(int64_t i) const { return std::min(total, (i + 1) * size); }
  int64_t Size(int64_t i) const { return End(i) - Begin(i); }
};

}  // namespace kconv

#endif  // KCONV_SPLIT_H_
