#include "workspace_limit.h"

#include <atomic>
#include <cstdlib>

namespace kconv {
namespace {

// Python warns of what cannot be read; here it changes nothing.
int64_t FromEnvironment() {
  const char* text = std::getenv("KCONV_WORKSPACE_LIMIT");
  int64_t bytes = kNoWorkspaceLimit;
  if (text != nullptr) ParseWorkspaceLimit(text, &bytes);
  return bytes;
}

std::atomic<int64_t>& Limit() {
  static std::atomic<int64_t> limit{FromEnvironment()};
  return limit;
}

}  // namespace

bool ParseWorkspaceLimit(const std::string& text, int64_t* bytes) {
  size_t digits = 0;
  int64_t number = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
    if (__builtin_mul_overflow(number, int64_t{10}, &number) ||
        __builtin_add_overflow(number, int64_t{text[digits] - '0'}, &number)) {
      return false;
    }
    ++digits;
  }
  const std::string unit = text.substr(digits);
  const int64_t factor = unit.empty()  ? 1
                         : unit == "K" ? int64_t{1} << 10
                         : unit == "M" ? int64_t{1} << 20
                         : unit == "G" ? int64_t{1} << 30
                                       : 0;
  if (digits == 0 || factor == 0 ||
      __builtin_mul_overflow(number, factor, &number)) {
    return false;
  }
  *bytes = number;
  return true;
}

int64_t WorkspaceLimit() { return Limit(); }

void SetWorkspaceLimit(int64_t bytes) { Limit() = bytes; }

}  // namespace kconv
